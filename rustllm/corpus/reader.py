"""Reading a corpus: its ids and documents as views, a check of all of it, and what it is like."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.corpus.formats import FORMATS, read_megatron_lengths
from rustllm.corpus.manifest import read_manifest
from rustllm.errors import (
    FileFormatError,
    FileMissingError,
    HashMismatchError,
    OutOfRangeError,
    TruncatedFileError,
)
from rustllm.iterators.blocks import map_file

if TYPE_CHECKING:
    from rustllm.iterators import TokenIterator
    from rustllm.types import PathLikeStr

__all__ = ["Corpus", "stats", "verify"]

Array = np.ndarray[Any, Any]


class Corpus:
    """A finished corpus, mapped.

    Parameters
    ----------
    folder : path
        As `rustllm.corpus.tokenize` left it.

    Attributes
    ----------
    manifest : dict
    ids : ndarray
        All ids, of the type they have on disk; read-only.
    lengths : ndarray
        Ids of each document, its end token included.

    Raises
    ------
    FileMissingError, FileFormatError, TruncatedFileError
        There is no finished corpus, or its files are not those of its manifest.

    Notes
    -----
    Immutable: any number of threads and forked processes may read one.
    """

    def __init__(self, folder: PathLikeStr) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = read_manifest(self.folder / "corpus.json")
        options = self.manifest["options"]
        self._format, self._dtype = options["format"], options["dtype"]
        self._n_tokens: int = self.manifest["tokens"]
        self._n_vocab: int = options["n_vocab"]
        self._files: dict[str, Any] = self.manifest["files"]
        name = FORMATS[self._format]
        for file, facts in self._files.items():
            self._check_size(file, facts["bytes"])
        self.ids = self._map(name)
        if len(self.ids) != self._n_tokens:
            raise FileFormatError(
                f"{len(self.ids)} ids, and the manifest says {self._n_tokens}",
                path=self.folder / name,
            )
        if self._format == "megatron":
            index = self.folder / "tokens.idx"
            self.lengths = read_megatron_lengths(index, self._dtype, self._n_tokens)
        else:
            self.lengths = map_file(self.folder / "lengths.npy", None, 0)
        ends = np.cumsum(self.lengths, dtype=np.int64)
        if (
            len(ends) != self.manifest["documents"]
            or (int(ends[-1]) if len(ends) else 0) != self._n_tokens
            or bool((np.diff(ends, prepend=0) < 0).any())
        ):
            raise FileFormatError("the lengths do not add up to the ids", path=self.folder)
        self._ends = ends

    def _check_size(self, name: str, size: int) -> None:
        path = self.folder / name
        try:
            found = path.stat().st_size
        except FileNotFoundError as error:
            raise FileMissingError("a file of the corpus is missing", path=path) from error
        if found != size:
            kind = TruncatedFileError if found < size else FileFormatError
            raise kind(f"{found} bytes, and the manifest says {size}", path=path)

    def _map(self, name: str) -> Array:
        if self._format == "npy":
            return map_file(self.folder / name, None, 0)
        return map_file(self.folder / name, np.dtype(self._dtype).newbyteorder("<"), 0)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Array:
        """Return the ids of a document as a view."""
        n = len(self)
        if not -n <= index < n:
            raise OutOfRangeError(f"document {index} of {n}", index=index)
        index %= n
        start = int(self._ends[index - 1]) if index else 0
        return self.ids[start : int(self._ends[index])]

    def tokens(self) -> TokenIterator[int]:
        """Return an iterator over all ids, with `window`, `chunk` and the rest as methods."""
        from rustllm.iterators import TokenIterator

        return TokenIterator(self.ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return Corpus, (self.folder,)

    def __repr__(self) -> str:
        return f"Corpus({str(self.folder)!r}, {len(self)} documents, {self._n_tokens} tokens)"


def verify(folder: PathLikeStr) -> dict[str, Any]:
    """Read a corpus whole and compare it with its manifest.

    Returns
    -------
    dict
        Numbers of ``files``, ``bytes``, ``tokens`` and ``documents`` that were checked.

    Raises
    ------
    HashMismatchError
        A file's bytes changed.
    FileMissingError, FileFormatError, TruncatedFileError
        A file is missing, of the wrong size, or holds ids outside the vocabulary.
    """
    corpus = Corpus(folder)
    total = 0
    for name, facts in corpus._files.items():
        path = corpus.folder / name
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                total += len(block)
        if digest.hexdigest() != facts["sha256"]:
            raise HashMismatchError(
                "the file is not the one that was written",
                path=path,
                expected=facts["sha256"],
                actual=digest.hexdigest(),
                hint="corpus.repair, or `corpus verify --repair`, does the damaged units again",
            )
    for start in range(0, len(corpus.ids), 1 << 22):
        block_max = int(corpus.ids[start : start + (1 << 22)].max())
        if block_max >= corpus._n_vocab:
            raise FileFormatError(
                f"the id {block_max} is outside the vocabulary of {corpus._n_vocab}",
                path=corpus.folder,
            )
    return {
        "files": len(corpus._files),
        "bytes": total,
        "tokens": corpus._n_tokens,
        "documents": len(corpus),
    }


def stats(folder: PathLikeStr) -> dict[str, Any]:
    """Describe a corpus: sizes, lengths of documents, bytes a token by source.

    Returns
    -------
    dict
        ``tokens``, ``documents``, ``text_bytes``, ``bytes_per_token``, ``lengths`` (smallest,
        quartiles, largest, mean), ``histogram`` of lengths by powers of two, and ``sources``.
    """
    corpus = Corpus(folder)
    lengths = np.asarray(corpus.lengths, dtype=np.int64)
    tokens = corpus._n_tokens
    text_bytes = int(corpus.manifest["text_bytes"])
    described: dict[str, Any] = {}
    histogram: list[dict[str, int]] = []
    if len(lengths):
        quartiles = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1])
        names = ("least", "lower_quartile", "median", "upper_quartile", "most")
        described = dict(zip(names, map(float, quartiles), strict=True))
        described["mean"] = float(lengths.mean())
        # frexp: the exponent is the number of bits, so a class is 2**(k-1) .. 2**k - 1.
        classes = np.bincount(np.frexp(lengths.astype(np.float64))[1])
        for k, count in enumerate(classes.tolist()):
            if count:
                low = 0 if k == 0 else 1 << (k - 1)
                histogram.append({"from": low, "to": (1 << k) - 1, "documents": count})
    return {
        "tokens": tokens,
        "documents": len(lengths),
        "text_bytes": text_bytes,
        "bytes_per_token": text_bytes / tokens if tokens else None,
        "lengths": described,
        "histogram": histogram,
        "sources": [
            {**source, "bytes_per_token": source["bytes"] / source["tokens"]}
            if source["tokens"]
            else source
            for source in corpus.manifest["sources"]
        ],
    }
