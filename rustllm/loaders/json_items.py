"""The items of a JSON array one at a time, in the memory of one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from rustllm.errors import FileFormatError, MemoryLimitError

__all__ = ["json_items"]

_SPACE = re.compile(r"[ \t\n\r]*")
_TRIM = 1 << 20
# An error so near the end of what has been read may be the end's: the longest is half of a pair of
# escapes.
_NEAR = 16
_TAIL = len("e+")


def json_items(pieces: Iterable[str], path: str, most: int) -> Iterator[Any]:
    """Yield the items of an array, or the one value, that pieces of text spell.

    Parameters
    ----------
    pieces : iterable of str
    path : str
        For errors.
    most : int
        Characters of an item that are too many.

    Raises
    ------
    FileFormatError
        It is not JSON; the offset counts bytes of UTF-8.
    MemoryLimitError
        An item is too long.

    Notes
    -----
    Linear in the text: an item that does not fit is tried again once what is held has doubled.
    """
    reader = _Reader(iter(pieces), path, most)
    if reader.next_character() != "[":
        yield reader.value()
        reader.require_end()
        return
    reader.skip()
    if reader.next_character() == "]":
        reader.skip()
        reader.require_end()
        return
    while True:
        yield reader.value()
        found = reader.next_character()
        if found == "]":
            reader.skip()
            reader.require_end()
            return
        if found != ",":
            raise reader.error("Expecting ',' delimiter", reader.at)
        reader.skip()


class _Reader:
    def __init__(self, pieces: Iterator[str], path: str, most: int) -> None:
        self._pieces = pieces
        self._path = path
        self._most = most
        self._text = ""
        self.at = 0
        self._before = 0  # bytes of what was let go
        self._is_whole = False
        self._decoder = json.JSONDecoder()

    def _more(self, n: int) -> None:
        """Hold `n` characters behind `at`, or all there are."""
        held = [self._text[self.at :]]
        self._before += len(self._text[: self.at].encode("utf-8", "surrogatepass"))
        self.at = 0
        size = len(held[0])
        while size < n and not self._is_whole:
            piece = next(self._pieces, None)
            if piece is None:
                self._is_whole = True
            else:
                held.append(piece)
                size += len(piece)
        self._text = "".join(held)

    def next_character(self) -> str:
        """The next that is no space, at `at`; "" at the end."""
        while True:
            found = _SPACE.match(self._text, self.at)
            assert found is not None
            self.at = found.end()
            if self.at < len(self._text):
                return self._text[self.at]
            if self._is_whole:
                return ""
            self._more(1)

    def skip(self) -> None:
        """Go past the character at `at`."""
        self.at += 1

    def value(self) -> Any:
        """Read the value at `at`, or behind spaces."""
        self.next_character()
        if self.at > _TRIM:
            self._more(1)
        while True:
            held = len(self._text) - self.at
            try:
                found, end = self._decoder.raw_decode(self._text, self.at)
            except json.JSONDecodeError as error:
                near = error.pos >= len(self._text) - _NEAR
                if self._is_whole or not (near or error.msg.startswith("Unterminated string")):
                    raise self.error(error.msg, error.pos) from None
            except (RecursionError, ValueError) as error:
                deep = isinstance(error, RecursionError)
                what = "nested too deeply" if deep else str(error)
                raise FileFormatError(
                    f"this cannot be read as JSON: {what}", path=self._path, offset=self._offset()
                ) from None
            else:
                # A number may go on behind what has been read: "1", ".", and then digits.
                numeric = isinstance(found, int | float)
                if self._is_whole or not numeric or len(self._text) - end > _TAIL:
                    self.at = end
                    return found
            if held > self._most:
                raise MemoryLimitError(
                    f"an item of more than {self._most} characters",
                    path=self._path,
                    offset=self._offset(),
                )
            self._more(2 * held + 1)

    def require_end(self) -> None:
        """Raise unless nothing follows."""
        if self.next_character():
            raise self.error("Extra data", self.at)

    def _offset(self, at: int | None = None) -> int:
        at = self.at if at is None else at
        return self._before + len(self._text[:at].encode("utf-8", "surrogatepass"))

    def error(self, what: str, at: int) -> FileFormatError:
        """What to raise for what stands at `at`."""
        return FileFormatError(
            f"this is not JSON: {what}", path=self._path, offset=self._offset(at)
        )
