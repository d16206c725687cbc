"""What a command writes: data on stdout, progress and timing on stderr if a person looks."""

from __future__ import annotations

import json as _json
import os
import sys
import time
from argparse import Namespace
from typing import Any

__all__ = ["Output", "ProgressBar"]

# Raised when a field changes its meaning or goes away; a new field does not raise it.
SCHEMA_VERSION = 1


class Output:
    """The two streams of one command.

    Parameters
    ----------
    json : bool
        Data is one JSON document; text is not written.
    quiet : bool
        Nothing on stderr but errors.

    Notes
    -----
    Used by one thread. stdout is UTF-8 whatever the locale says, so that bytes arrive as they are.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    @classmethod
    def of(cls, args: Namespace) -> Output:
        """Make the output that the options common to every command ask for."""
        return cls(json=args.json, quiet=args.quiet)

    @property
    def shows_progress(self) -> bool:
        """Whether a person reads stderr."""
        return not self.quiet and _is_terminal(sys.stderr)

    @property
    def shows_text(self) -> bool:
        """Whether a person reads stdout."""
        return _is_terminal(sys.stdout)

    @property
    def colors(self) -> bool:
        """Whether data may be coloured: a terminal that can, and nobody said no (``NO_COLOR``)."""
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return False
        return bool(os.environ.get("FORCE_COLOR")) or self.shows_text

    def write(self, data: str | bytes) -> None:
        """Write data to stdout now, not when a buffer is full."""
        raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is None:  # a text-only replacement, as tests and notebooks install
            sys.stdout.write(raw.decode("utf-8", "replace"))
        else:
            sys.stdout.flush()
            buffer.write(raw)
        sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """Write one line of data to stdout."""
        self.write(text + "\n")

    def document(self, kind: str, **fields: Any) -> None:
        """Write one JSON document: ``schema`` names it, ``schema_version`` counts its changes."""
        document = {"schema": f"rustllm.{kind}", "schema_version": SCHEMA_VERSION, **fields}
        self.line(_json.dumps(document, ensure_ascii=False, default=_plain))

    def note(self, text: str) -> None:
        """Tell a person something that is not data: timing, a choice that was made."""
        if self.shows_progress:
            print(_dim(text), file=sys.stderr, flush=True)

    def progress(self) -> ProgressBar:
        """Return a bar to feed with ``(what, done, total)``; silent when nobody looks."""
        return ProgressBar(visible=self.shows_progress)


class ProgressBar:
    """A line on stderr that is drawn over itself, at most ten times a second.

    Notes
    -----
    Used by one thread.
    """

    WIDTH = 28

    def __init__(self, *, visible: bool) -> None:
        self._visible = visible
        self._drawn_at = -1.0
        self._drawn = ""

    def __call__(
        self, what: str, done: int, total: int | None, unit: str = "MB", after: str = ""
    ) -> None:
        """Draw ``what`` with ``done`` of ``total`` bytes; ``total`` is None when unknown.

        Any ``unit`` but MB is counted as it is. ``after`` stands at the end of the line.
        """
        now = time.monotonic()
        finished = bool(total) and done >= (total or 0)
        if not self._visible or (now - self._drawn_at < 0.1 and not finished):
            return
        self._drawn_at = now
        count = f"{done / 1e6:.1f}" if unit == "MB" else f"{done:,}"
        text = f"{what} {count} {unit}"
        if total:
            share = min(done / total, 1.0)
            filled = round(share * self.WIDTH)
            bar = "#" * filled + "." * (self.WIDTH - filled)
            whole = f"{total / 1e6:.1f}" if unit == "MB" else f"{total:,}"
            text = f"{what} [{bar}] {count}/{whole} {unit} {share:4.0%}"
        text += after
        if text == self._drawn:
            return
        self._drawn = text
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the line."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _dim(text: str) -> str:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[2m{text}\x1b[0m"


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
