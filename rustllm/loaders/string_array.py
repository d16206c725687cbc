"""Strings that stand one after another in a file, as a sequence that decodes on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from rustllm._core.scan import first_bad_utf8, strings_to_list
from rustllm._core.view import TextSlice
from rustllm.errors import FileFormatError, InvalidUtf8Error, OutOfRangeError

__all__ = ["StringArray"]


class StringArray(Sequence[str]):
    """An immutable sequence of strings over a buffer, without a copy.

    Parameters
    ----------
    buffer : ndarray of uint8
        The bytes; the sequence keeps them alive.
    offsets, lengths : ndarray of int64
        Where each string begins in `buffer`, and its bytes; ``[n]``.
    path : str, optional
        Named in errors.

    Attributes
    ----------
    n : int
    buffer, offsets, lengths : ndarray
        As given.

    Notes
    -----
    Text is checked when it is asked for, strictly: a string that is not UTF-8 raises
    :class:`~rustllm.errors.FileFormatError` with its offset, while its bytes can still be had by
    :meth:`bytes_at`. Vocabularies of some models hold such strings.

    Thread-safe: immutable.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm.loaders.string_array import StringArray
    >>> text = np.frombuffer(b"onetwo", np.uint8)
    >>> words = StringArray(text, np.array([0, 3]), np.array([3, 3]))
    >>> words[1], words.as_bytes_list(), len(words)
    ('two', [b'one', b'two'], 2)
    """

    __slots__ = ("buffer", "lengths", "n", "offsets", "path")

    def __init__(
        self,
        buffer: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        lengths: NDArray[np.int64],
        path: str | None = None,
    ) -> None:
        self.buffer = buffer
        self.offsets = offsets
        self.lengths = lengths
        self.path = path
        self.n = len(offsets)

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> StringArray: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return StringArray(
                self.buffer, self.offsets[index], self.lengths[index], path=self.path
            )
        data = self.bytes_at(index)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self._not_text(range(self.n)[index]) from None

    def bytes_at(self, index: int) -> bytes:
        """String `index` as the bytes in the file, whatever they are."""
        try:
            start = int(self.offsets[index])
            length = int(self.lengths[index])
        except IndexError:
            raise OutOfRangeError(f"string {index} of {self.n}") from None
        return self.buffer[start : start + length].tobytes()

    def slice_at(self, index: int) -> TextSlice:
        """String `index` where it stands in the file, without a copy; checked to be UTF-8."""
        try:
            start = int(self.offsets[index])
            length = int(self.lengths[index])
        except IndexError:
            raise OutOfRangeError(f"string {index} of {self.n}") from None
        try:
            return TextSlice(self.buffer[start : start + length])
        except InvalidUtf8Error:
            raise self._not_text(range(self.n)[index]) from None

    def as_bytes_list(self) -> list[bytes]:
        """All strings as bytes. O(total bytes)."""
        return strings_to_list(self.buffer, self.offsets, self.lengths, False)

    def as_list(self) -> list[str]:
        """All strings as text. O(total bytes).

        Raises
        ------
        FileFormatError
            One of them is not UTF-8.
        """
        try:
            return strings_to_list(self.buffer, self.offsets, self.lengths, True)
        except UnicodeDecodeError:
            self.check_utf8()
            raise

    def check_utf8(self) -> None:
        """Raise :class:`~rustllm.errors.FileFormatError` for the first string that is not UTF-8."""
        bad = first_bad_utf8(self.buffer, self.offsets, self.lengths)
        if bad >= 0:
            raise self._not_text(bad)

    def __iter__(self) -> Iterator[str]:
        step = 4096
        for start in range(0, self.n, step):
            yield from self[start : start + step].as_list()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StringArray):
            return self.as_bytes_list() == other.as_bytes_list()
        if isinstance(other, (list, tuple)):
            return len(other) == self.n and self.as_list() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        first = ", ".join(
            repr(self.bytes_at(i).decode(errors="replace")) for i in range(min(3, self.n))
        )
        return f"StringArray([{first}{', ...' if self.n > 3 else ''}], n={self.n})"

    def _not_text(self, index: int) -> FileFormatError:
        return FileFormatError(
            f"string {index} of {self.n} is not valid UTF-8",
            path=self.path,
            offset=int(self.offsets[index]),
            hint="bytes_at() gives its bytes",
        )
