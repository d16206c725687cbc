"""Compressed streams, read in bounded pieces, with an error that tells where they break."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from rustllm._optional import need
from rustllm.errors import FileFormatError, TruncatedFileError

__all__ = ["COMPRESSIONS", "DecompressedStream", "compression_of"]

_INPUT = 1 << 16
# A zstd frame can hold 32,000 times its size: little input at a time keeps the output bounded.
_ZSTD_INPUT = 1 << 10
# No text shrinks like this; what does is made to fill a disk.
_BOMB_RATIO = 900
_BOMB_BYTES = 1 << 28


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's decoder with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        import zlib

        self._decoder = zlib.decompressobj(31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length
        return out


class _Zstd:
    """zstandard's decoder with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        zstandard = need("zstandard", "zstd", "zstd files need")
        self._decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        self._ready = b""
        self.needs_input = True
        self._ended = False

    @property
    def eof(self) -> bool:
        return self._ended and not self._ready

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decoder.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data and not self._ended:
            self._ready += self._decoder.decompress(data)
            self._ended = self._decoder.eof
        out, self._ready = self._ready[:max_length], self._ready[max_length:]
        self.needs_input = not self._ready and not self._ended
        return out


def _bzip2() -> _Decoder:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> _Decoder:
    import lzma

    return lzma.LZMADecompressor(memlimit=1 << 28)


def _lz4() -> _Decoder:
    decoder: _Decoder = need("lz4.frame", "lz4", "lz4 files need").LZ4FrameDecompressor()
    return decoder


# Name: the bytes a file begins with, a new decoder, and how much to feed it at a time.
COMPRESSIONS: dict[str, tuple[bytes, Callable[[], _Decoder], int]] = {
    "gzip": (b"\x1f\x8b\x08", _Gzip, _INPUT),
    "bzip2": (b"BZh", _bzip2, _INPUT),
    "xz": (b"\xfd7zXZ\0", _xz, _INPUT),
    "zstd": (b"\x28\xb5\x2f\xfd", _Zstd, _ZSTD_INPUT),
    "lz4": (b"\x04\x22\x4d\x18", _lz4, _INPUT),
}


def compression_of(head: bytes) -> str | None:
    """Name of the compression that data with this beginning has; None for none that is known.

    Examples
    --------
    >>> import gzip
    >>> from rustllm.loaders.compression import compression_of
    >>> compression_of(gzip.compress(b"text")), compression_of(b"text")
    ('gzip', None)
    """
    for name, (magic, _, _) in COMPRESSIONS.items():
        if head.startswith(magic) and (name != "bzip2" or _is_bzip2(head)):
            return name
    return None


def _is_bzip2(head: bytes) -> bool:
    """ "BZh" may begin a text: a level and the mark of a block, or of the end, must follow."""
    marks = (b"1AY&SY", b"\x17rE8P\x90")
    return head[3:4] in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9") and any(
        head[4:10] == mark[: len(head) - 4] for mark in marks
    )


class DecompressedStream(io.RawIOBase):
    """What a compressed stream holds, piece by piece; several members follow each other.

    Parameters
    ----------
    raw : binary file object
        The compressed bytes, from their beginning.
    compression : str
        One of :data:`COMPRESSIONS`.
    path : str
        Named in errors.
    guard : bool
        Refuse a stream that grows like a decompression bomb: more than 256 MiB at more than 900
        times its size.

    Raises
    ------
    TruncatedFileError
        The stream ends in the middle; ``offset`` counts compressed bytes.
    FileFormatError
        The stream is damaged, or looks like a bomb.
    MissingDependencyError
        zstd or lz4 without the package.

    Notes
    -----
    Memory is bounded whatever the stream holds. Used by one thread.
    """

    def __init__(self, raw: BinaryIO, compression: str, path: str, *, guard: bool = True) -> None:
        super().__init__()
        self._raw = raw
        self._compression = compression
        self._path = path
        self._guard = guard
        _, self._new_decoder, self._step = COMPRESSIONS[compression]
        self._decoder: _Decoder | None = self._new_decoder()
        self._fed = 0
        self._given = 0
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (a reasonable piece for -1); none only at the end."""
        if self.closed:
            raise ValueError("the stream is closed")
        size = _INPUT if size is None or size < 0 else size
        while size and self._decoder is not None:
            if self._decoder.eof and not self._next_member():
                break
            data = b""
            if self._decoder.needs_input:
                data = self._feed()
                if not data:
                    raise TruncatedFileError(
                        f"the {self._compression} data ends in the middle",
                        path=self._path,
                        offset=self._fed,
                        hint="the file is incomplete: fetch it again",
                    )
            out = self._decompress(data, size)
            if out:
                self._given += len(out)
                if (
                    self._guard
                    and self._given > _BOMB_BYTES
                    and self._given > _BOMB_RATIO * self._fed
                ):
                    raise FileFormatError(
                        f"{self._fed} compressed bytes have grown to {self._given}: this looks "
                        "like a decompression bomb",
                        path=self._path,
                        offset=self._fed,
                        hint="decompress it yourself if it is not",
                    )
                return out
        return b""

    def _feed(self) -> bytes:
        data, self._rest = self._rest[: self._step], self._rest[self._step :]
        if not data:
            data = self._raw.read(self._step)
        self._fed += len(data)
        return data

    def _decompress(self, data: bytes, size: int) -> bytes:
        assert self._decoder is not None
        try:
            return self._decoder.decompress(data, size)
        except MemoryError:
            raise
        except Exception as error:  # each library has its own class
            raise FileFormatError(
                f"the {self._compression} data is damaged: {error}",
                path=self._path,
                offset=max(self._fed - len(data), 0),
                hint="the file is damaged: fetch it again",
            ) from None

    def _next_member(self) -> bool:
        """Go on to the member that follows; False at the end. Zeros may fill the end."""
        assert self._decoder is not None
        unused = self._decoder.unused_data or b""  # lz4 says None
        self._rest = unused + self._rest
        self._fed -= len(unused)
        while True:
            self._rest = self._rest.lstrip(b"\0")
            if self._rest:
                break
            self._rest = self._raw.read(_INPUT)
            if not self._rest:
                self._decoder = None
                return False
        self._decoder = self._new_decoder()
        return True

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
