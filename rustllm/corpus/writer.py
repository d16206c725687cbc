"""Writing the files of a corpus: ids, lengths of documents, and the manifest, which comes last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from rustllm.corpus.formats import FORMATS, write_ids, write_megatron_index
from rustllm.serialize import atomic_write

__all__ = ["hashed", "write_data", "write_manifest"]

Array = np.ndarray[Any, Any]


class _HashingFile:
    """A file that knows the SHA-256 and the size of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += memoryview(data).nbytes
        return self._file.write(data)


@contextmanager
def hashed(path: Path, files: dict[str, Any]) -> Iterator[Any]:
    """Write a file that appears whole or not at all, and note its size and hash in `files`."""
    with atomic_write(path) as file:
        hashing = _HashingFile(file)
        yield hashing
    files[path.name] = {"bytes": hashing.size, "sha256": hashing.digest.hexdigest()}


def write_data(
    folder: Path,
    format: str,
    dtype: str,
    n_tokens: int,
    n_documents: int,
    ids: Iterable[Array],
    lengths: Callable[[], Iterator[Array]],
) -> dict[str, Any]:
    """Write ids and lengths, which come in parts, and return the files for the manifest.

    Parameters
    ----------
    lengths : callable
        Returns the parts anew each time it is called.
    """
    files: dict[str, Any] = {}
    with hashed(folder / FORMATS[format], files) as file:
        write_ids(file, format, dtype, n_tokens, iter(ids))
    if format == "megatron":
        with hashed(folder / "tokens.idx", files) as file:
            write_megatron_index(file, dtype, n_documents, lengths)
    else:
        with hashed(folder / "lengths.npy", files) as file:
            parts = (part.astype(np.uint32) for part in lengths())
            write_ids(file, "npy", "uint32", n_documents, parts)
    return files


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, with which a corpus is finished."""
    with atomic_write(folder / "corpus.json") as file:
        file.write(json.dumps(manifest, sort_keys=True, indent=1).encode())
