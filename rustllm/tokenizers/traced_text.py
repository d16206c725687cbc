"""A text under change, with the span of the original text behind each of its characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["Span", "TracedText"]

Span = tuple[int, int]


class TracedText:
    """A text and, if wanted, where each character comes from.

    Parameters
    ----------
    text : str
    spans : list of (int, int), optional
        For each character the span of the original text behind it. None when nobody asked for
        offsets, which makes every change cheaper.
    at_start : bool
        Whether this is the start of the original text.

    Notes
    -----
    The methods change the object and follow ``tokenizers``: an inserted character gets the span of
    the one before it, a replacement that of the first one replaced.

    Examples
    --------
    >>> text = TracedText.of("ab")
    >>> text.rewrite([("x", 0), ("y", 1), ("b", 0)])
    >>> text.text, text.spans
    ('xyb', [(0, 1), (0, 1), (1, 2)])
    """

    __slots__ = ("at_start", "spans", "text")

    def __init__(self, text: str, spans: list[Span] | None, at_start: bool = False) -> None:
        self.text = text
        self.spans = spans
        self.at_start = at_start

    @classmethod
    def of(cls, text: str, traced: bool = True) -> TracedText:
        """The original text itself."""
        return cls(text, [(i, i + 1) for i in range(len(text))] if traced else None, True)

    def slice(self, start: int, end: int) -> TracedText:
        """The characters from `start` to `end`, as a text of its own."""
        spans = self.spans
        return TracedText(
            self.text[start:end],
            None if spans is None else spans[start:end],
            self.at_start and (start == 0 if spans is None or not spans else spans[start][0] == 0)
            if start < len(self.text)
            else False,
        )

    def rewrite(self, changes: Iterable[tuple[str, int]], dropped_first: int = 0) -> None:
        """Replace the whole text.

        Parameters
        ----------
        changes : iterable of (str, int)
            New characters, each with a number: 0 replaces one character, 1 is inserted, -n replaces
            one character and drops the n behind it.
        dropped_first : int
            Characters dropped at the beginning.
        """
        changes = list(changes)
        old = self.spans
        self.text = "".join([char for char, _ in changes])
        if old is None:
            return
        at = dropped_first
        spans: list[Span] = []
        for _, change in changes:
            if change > 0:
                spans.append(old[at - 1] if at else (0, 0))
            else:
                spans.append(old[at])
                at += 1 - change
        self.spans = spans

    def map_characters(self, change: Callable[[str], str]) -> None:
        """Replace each character by what `change` makes of it, one or more characters."""
        if self.spans is None:
            # few different characters stand in a long text
            found = {char: change(char) for char in set(self.text)}
            new = {ord(char): to for char, to in found.items() if to != char}
            if new:
                self.text = self.text.translate(new)
            return
        changes: list[tuple[str, int]] = []
        for char in self.text:
            changes += [(new, int(i > 0)) for i, new in enumerate(change(char))]
        self.rewrite(changes)

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Drop the characters that are not `wanted`."""
        dropped = {ord(char): None for char in set(self.text) if not wanted(char)}
        if not dropped:
            return
        if self.spans is not None:
            self.spans = [
                span
                for char, span in zip(self.text, self.spans, strict=True)
                if ord(char) not in dropped
            ]
        self.text = self.text.translate(dropped)

    def prepend(self, text: str) -> None:
        """Put `text` in front, with the span of the first character; no text stays none."""
        if not self.text:
            return
        self.text = text + self.text
        if self.spans is not None:
            self.spans = [self.spans[0]] * len(text) + self.spans

    def replace(self, matches: Iterable[Span], content: str) -> None:
        """Put `content` in place of each of `matches`, spans of this text in order."""
        parts: list[str] = []
        spans: list[Span] = []
        last = 0
        for start, end in matches:
            parts += (self.text[last:start], content)
            if self.spans is not None:
                spans += self.spans[last:start]
                # all of `content` is inserted behind the match, which is then taken away
                behind = self.spans[end - 1] if end else (0, 0)
                spans += [behind] * len(content)
            last = end
        parts.append(self.text[last:])
        if self.spans is not None:
            self.spans = spans + self.spans[last:]
        self.text = "".join(parts)
