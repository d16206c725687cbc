"""Open any file by what it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import PathLike
from typing import Any

from rustllm._optional import need
from rustllm.errors import (
    FileFormatError,
    UnsupportedError,
    convert_errors,
)
from rustllm.loaders.base import Loader
from rustllm.loaders.detect import FileFormat, detect_format
from rustllm.loaders.mapped import MappedFile, file_error
from rustllm.loaders.records import RecordStream
from rustllm.loaders.sources import open_bytes
from rustllm.loaders.text import TextStream, read_text, stream_text
from rustllm.plugins.builtin import for_file, lookup

__all__ = ["ArrayFile", "BytesFile", "RecordFile", "TableFile", "TextFile", "open_file"]

_ARCHIVES = ("zip", "tar", "7z", "rar")


@convert_errors()
def open_file(path: str | PathLike[str], **options: Any) -> Loader:
    """Open a file by its content, whatever its name.

    Parameters
    ----------
    path : path
        A regular file; text and records may be compressed.
    **options
        For what opens the file: ``mmap`` of model files, ``encoding`` and ``fallback`` of text.

    Returns
    -------
    Loader
        :class:`~rustllm.loaders.gguf.GGUFFile`,
        :class:`~rustllm.loaders.safetensors.SafetensorsFile`, :class:`TextFile`,
        :class:`RecordFile` (JSON lines, JSON, CSV, TSV), :class:`TableFile` (parquet, Arrow),
        :class:`ArrayFile` (``.npy``), or :class:`BytesFile` (tokenizer models and what is not
        known).

    Raises
    ------
    FileMissingError, FileAccessError
        The file cannot be read.
    FileFormatError, TruncatedFileError
        It is empty, damaged, or breaks the rules of its format.
    UnsupportedError
        An archive, which holds other files; a pickle, which could run code.
    MissingDependencyError
        An optional package is needed.

    Examples
    --------
    >>> import os, tempfile
    >>> from rustllm.loaders.opening import open_file
    >>> path = os.path.join(tempfile.mkdtemp(), "lines.dat")
    >>> with open(path, "w") as out:
    ...     _ = out.write('{"text": "a"}\\n{"text": "b"}\\n')
    >>> with open_file(path) as file:
    ...     print(file.format.kind, [record["text"] for record in file.records()])
    jsonl ['a', 'b']
    """
    name = os.fspath(path)
    told = detect_format(name)
    kind = told.kind
    if kind == "empty":
        raise FileFormatError("the file is empty", path=name, offset=0)
    if kind in _ARCHIVES:
        hint = "unpack it first"
        if kind in ("zip", "tar"):
            hint = "open_archive() reads the files in it"
        raise UnsupportedError(f"this is a {kind} archive", path=name, hint=hint)
    if kind == "pickle":
        raise UnsupportedError(
            "this is a pickle, which could run any code when it is read",
            path=name,
            hint="convert the model to safetensors",
        )
    if told.compression is not None and not told.is_text:
        raise UnsupportedError(
            f"a {kind} file inside {told.compression} cannot be mapped",
            path=name,
            hint="decompress it first",
        )
    if kind in ("gguf", "safetensors"):
        opened: Loader = lookup("loader", kind)(name, **options)
        return opened
    if kind in ("text", "binary"):  # the content says no more; a plugin may know what it means
        with open_bytes(name) as (stream, _):
            open_it = for_file("loader", name, stream.read(64))
        if open_it is not None:
            found: Loader = open_it(name, **options)
            return found
    if kind == "npy":
        return ArrayFile(name, told, **options)
    if kind in ("parquet", "arrow"):
        return TableFile(name, told, **options)
    if kind in ("jsonl", "json", "csv", "tsv"):
        return RecordFile(name, told, **options)
    if told.is_text:
        return TextFile(name, told, **options)
    return BytesFile(name, told, **options)


class TextFile(Loader):
    """A text; opened anew by every call, so that nothing is held in between.

    Parameters are those of :func:`~rustllm.loaders.text.read_text`.
    """

    def __init__(self, path: str, told: FileFormat | None = None, **options: Any) -> None:
        self.path = path
        self._format = detect_format(path) if told is None else told
        self._options = options

    @property
    def format(self) -> FileFormat:
        return self._format

    def read(self, **options: Any) -> str:
        """The whole text; see :func:`~rustllm.loaders.text.read_text`."""
        return read_text(self.path, **{**self._options, **options})

    def stream(self, chunk: int = 1 << 20, **options: Any) -> TextStream:
        """Pieces of the text; see :func:`~rustllm.loaders.text.stream_text`."""
        return stream_text(self.path, chunk, **{**self._options, **options})

    def __iter__(self) -> Iterator[str]:
        """Lines, without their ends."""
        with self.stream(unit="line") as stream:
            yield from stream

    def close(self) -> None:
        """Nothing is held open."""


class RecordFile(TextFile):
    """JSON lines, JSON, CSV or TSV: text that holds records."""

    def records(self, **options: Any) -> RecordStream:
        """Dicts; see :func:`~rustllm.loaders.records.stream_records`."""
        return RecordStream(self.path, self.format.kind, **{**self._options, **options})


class TableFile(Loader):
    """Parquet and Arrow, by the ``arrow`` extra."""

    def __init__(self, path: str, told: FileFormat) -> None:
        self.path = path
        self._format = told
        need("pyarrow", "arrow", f"{told.kind} files need", path=path)

    @property
    def format(self) -> FileFormat:
        return self._format

    def records(self, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """Rows as dicts, a batch in memory at a time."""
        import pyarrow as pa

        try:
            if self._format.kind == "parquet":
                import pyarrow.parquet as pq

                with pq.ParquetFile(self.path) as file:
                    for batch in file.iter_batches(columns=columns):
                        batch.validate(full=True)  # a damaged one is read as it says
                        yield from batch.to_pylist()
            else:
                with pa.memory_map(self.path) as source, pa.ipc.open_file(source) as reader:
                    for i in range(reader.num_record_batches):
                        batch = reader.get_batch(i)
                        batch.validate(full=True)
                        yield from (batch.select(columns) if columns else batch).to_pylist()
        except KeyError as error:
            raise FileFormatError(f"no such column: {error}", path=self.path) from None
        except OSError as error:
            if error.errno is None:  # pyarrow's word for a damaged file
                raise FileFormatError(str(error), path=self.path) from None
            raise file_error(error, self.path) from None
        except (pa.ArrowException, ValueError) as error:  # also names that are not UTF-8
            raise FileFormatError(str(error), path=self.path) from None

    def close(self) -> None:
        """Nothing is held open."""


class ArrayFile(Loader):
    """A numpy ``.npy`` file; objects, which would be pickles, are refused.

    Attributes
    ----------
    array : ndarray
        A read-only view of the mapped file (of a private copy, without `mmap`).
    """

    def __init__(self, path: str, told: FileFormat, *, mmap: bool = True) -> None:
        import numpy as np

        self.path = path
        self._format = told
        try:
            self.array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
        except OSError as error:
            raise file_error(error, path) from None
        except MemoryError:
            raise
        except Exception as error:  # numpy parses the head as Python, which fails in many ways
            raise FileFormatError(f"this array cannot be read: {error}", path=path) from None
        self.array.flags.writeable = False

    @property
    def format(self) -> FileFormat:
        return self._format

    def close(self) -> None:
        """Let go of the array; views of it stay valid."""
        self.__dict__.pop("array", None)


class BytesFile(Loader):
    """Any file, mapped.

    Attributes
    ----------
    data : ndarray of uint8
        A read-only view.
    """

    def __init__(self, path: str, told: FileFormat, *, mmap: bool = True) -> None:
        self.path = path
        self._format = told
        self._file = MappedFile(path, mmap=mmap)

    @property
    def data(self) -> Any:
        return self._file.buffer

    @property
    def format(self) -> FileFormat:
        return self._format

    def close(self) -> None:
        """Let go of the file; views of it stay valid."""
        self._file.close()
