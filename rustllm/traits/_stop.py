"""Watching a stream of text for the texts that end it."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Passes text on until a stop text appears, holding back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop text has appeared."""
        return self.found is not None

    def push(self, text: str) -> str:
        """Take more text, return what can no longer become part of a stop text."""
        if not self._stops or self.stopped:
            return "" if self.stopped else text
        held = self._held + text
        found = [(at, stop) for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            at, self.found = min(found)
            self._held = ""
            return held[:at]
        keep = max(_overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """Return what was held back in vain."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop` and is shorter than it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
