"""The text of a file where it lies: mapped, checked once, and cut without copies."""

from __future__ import annotations

from os import PathLike

from rustllm._core.view import TextSlice
from rustllm.errors import FileFormatError, InvalidUtf8Error
from rustllm.loaders.mapped import MappedFile

__all__ = ["map_text"]

_MARK = b"\xef\xbb\xbf"


def map_text(path: str | PathLike[str], *, mmap: bool = True) -> TextSlice:
    """Map a file of UTF-8 and look at it as text, without a copy.

    Lines, fields and other slices of it are views of the file too, and byte-level BPE tokenizers
    (:class:`~rustllm.Encoding` and its kin) encode them where they are.

    Parameters
    ----------
    path : path
        A regular file, not compressed.
    mmap : bool, optional
        Map it, so that the operating system may drop and read again what is not looked at; or read
        it whole, for files that others may shorten meanwhile.

    Returns
    -------
    TextSlice
        The whole text, without a byte order mark. It and every slice keep the mapping alive.

    Raises
    ------
    FileMissingError, FileAccessError
        The file cannot be opened.
    FileFormatError
        It is not UTF-8; ``offset`` says where. :func:`~rustllm.read_text` reads other encodings and
        compressed files.

    Notes
    -----
    The whole file is read once, to check it: O(n) time at tens of gigabytes a second once it is in
    memory, and no memory of its own. See :class:`~rustllm.loaders.mapped.MappedFile` for what
    happens when someone shortens a mapped file.

    Examples
    --------
    >>> import pathlib, rustllm
    >>> _ = pathlib.Path("lines.txt").write_text("the naïve\\nthe café\\n", "utf-8")
    >>> text = rustllm.map_text("lines.txt")
    >>> [str(line.split()[1]) for line in text.lines()]
    ['naïve', 'café']
    """
    file = MappedFile(path, mmap=mmap)
    data = file.buffer
    start = len(_MARK) if data[: len(_MARK)].tobytes() == _MARK else 0
    try:
        return TextSlice(data[start:])
    except InvalidUtf8Error as error:
        raise FileFormatError(
            "this is not UTF-8",
            path=file.path,
            offset=start + error.offset,
            hint="read_text() and stream_text() read other encodings and compressed files",
        ) from None
