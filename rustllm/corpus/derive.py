"""Corpora out of corpora: shuffled, split, packed into windows, joined."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.corpus.permutation import Permutation
from rustllm.corpus.reader import Corpus
from rustllm.corpus.writer import write_data, write_manifest
from rustllm.errors import ArgumentError, StateError

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["derive", "merge"]

Array = np.ndarray[Any, Any]
_BLOCK = 1 << 16


def derive(
    source: Corpus | PathLikeStr,
    output: PathLikeStr,
    *,
    shuffle: int | None = None,
    splits: Mapping[str, float] | None = None,
    window: int | None = None,
    packing: str = "cut",
    pad_id: int | None = None,
    format: str | None = None,
) -> dict[str, Corpus]:
    """Write a corpus anew: its documents in another order, in parts, in windows of one length.

    Parameters
    ----------
    source : Corpus or path
    output : path
        Folder for the result, and for a folder of each split.
    shuffle : int, optional
        Seed of an order for the documents.
    splits : mapping, optional
        Share of the documents by name, such as ``{"train": 0.99, "validation": 0.01}``; the shares
        add up to at most 1. A document's split follows from `shuffle` (or 0) and its number alone.
    window : int, optional
        Pack the documents into windows of so many ids, each a document of the result.
    packing : {"cut", "whole"}
        "cut" puts documents end to end and cuts anywhere; the ids left over are dropped. "whole"
        keeps a document that fits in one piece, each in the fullest window that has room for it,
        cuts only those longer than a window, and fills up with `pad_id`.
    pad_id : int, optional
        By default the id that ends documents.
    format : {"bin", "npy", "megatron"}, optional
        That of the source by default.

    Returns
    -------
    dict of str to Corpus
        By name of the split; ``""`` without splits.

    Raises
    ------
    ArgumentError
        An option is out of its range.
    StateError
        The output folder holds a corpus already.

    Notes
    -----
    The same arguments give the same bytes. Memory is a few words a document, whatever their
    lengths; "whole" takes O(n log n) time (best fit over documents in their order).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from rustllm import corpus
    >>> from rustllm.testing import ByteTokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source = pathlib.Path(folder, "in.jsonl")
    ...     _ = source.write_text('{"text": "abc"}\\n{"text": "de"}\\n')
    ...     made = corpus.tokenize([source], pathlib.Path(folder, "all"), ByteTokenizer(["<end>"]))
    ...     packed = corpus.derive(made, pathlib.Path(folder, "packed"), window=3)[""]
    ...     packed.ids.reshape(-1, 3).tolist()
    [[97, 98, 99], [256, 100, 101]]
    """
    corpus = source if isinstance(source, Corpus) else Corpus(source)
    options = corpus.manifest["options"]
    if window is not None and window < 1:
        raise ArgumentError(f"a window of {window} ids")
    if packing not in ("cut", "whole"):
        raise ArgumentError(f'packing must be "cut" or "whole", got {packing!r}')
    if pad_id is None:
        pad_id = options["end_id"]
    elif not 0 <= pad_id < options["n_vocab"]:
        raise ArgumentError(f"the id {pad_id} is not in the vocabulary")
    if window is not None and packing == "whole" and pad_id is None:
        raise ArgumentError("windows of whole documents need a pad_id")
    how = {
        "from": corpus.manifest["plan"], "shuffle": shuffle, "splits": dict(splits or {}),
        "window": window, "packing": packing, "pad_id": pad_id, "format": format,
    }  # fmt: skip
    folder = Path(output)
    made = {}
    for name, documents in _documents(len(corpus), shuffle, splits).items():
        target = folder / name if name else folder
        _require_empty(target)
        pieces = _Pieces(corpus, documents)
        if window is not None:
            pieces = pieces.cut(window) if packing == "cut" else pieces.pack(window, pad_id)
        _write(target, corpus, pieces, {**how, "split": name}, format or options["format"])
        made[name] = Corpus(target)
    return made


def merge(sources: Iterable[Corpus | PathLikeStr], output: PathLikeStr) -> Corpus:
    """Put corpora of one tokenizer one after the other.

    Raises
    ------
    ArgumentError
        There is none, or they differ in tokenizer or type of ids.
    StateError
        The output folder holds a corpus already.
    """
    corpora = [c if isinstance(c, Corpus) else Corpus(c) for c in sources]
    if not corpora:
        raise ArgumentError("there is nothing to merge")
    first = corpora[0].manifest
    for corpus in corpora[1:]:
        for what, a, b in (
            ("tokenizers", first["tokenizer"], corpus.manifest["tokenizer"]),
            ("types of ids", first["options"]["dtype"], corpus.manifest["options"]["dtype"]),
        ):
            if a != b:
                raise ArgumentError(f"{corpora[0].folder} and {corpus.folder} differ in {what}")
    folder = Path(output)
    _require_empty(folder)
    options = first["options"]
    files = write_data(
        folder,
        options["format"],
        options["dtype"],
        sum(len(c.ids) for c in corpora),
        sum(len(c) for c in corpora),
        (c.ids[i : i + _BLOCK] for c in corpora for i in range(0, len(c.ids), _BLOCK)),
        lambda: (np.asarray(c.lengths) for c in corpora),
    )
    manifests = [c.manifest for c in corpora]
    plan = _fingerprint({"merged": [m["plan"] for m in manifests]})
    totals = {
        name: sum(m[name] for m in manifests)
        for name in ("tokens", "documents", "text_bytes", "failures")
    }
    sources_of = [source for m in manifests for source in m["sources"]]
    inputs = [item for m in manifests for item in m["inputs"]]
    write_manifest(
        folder,
        {**first, "plan": plan, **totals, "files": files, "sources": sources_of, "inputs": inputs},
    )
    return Corpus(folder)


def _fingerprint(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _require_empty(folder: Path) -> None:
    if (folder / "corpus.json").exists():
        raise StateError("there is a corpus here already", path=folder, hint="name another folder")
    folder.mkdir(parents=True, exist_ok=True)


def _documents(n: int, shuffle: int | None, splits: Mapping[str, float] | None) -> dict[str, Array]:
    """The numbers of the documents of each split, in their order."""
    if shuffle is None:
        order = np.arange(n)
    else:
        permutation = Permutation(n, shuffle)
        order = np.fromiter((permutation[i] for i in range(n)), np.int64, n)
    if not splits:
        return {"": order}
    names, shares = list(splits), np.array(list(splits.values()), np.float64)
    if not (shares > 0).all() or shares.sum() > 1 + 1e-9:
        raise ArgumentError("shares of splits must be positive and add up to at most 1")
    for name in names:
        if not name or name != Path(name).name or name.startswith("."):
            raise ArgumentError(f"{name!r} is no name for a split")
    # A document's place in one fixed order decides, so that shares come out to one document.
    draw = Permutation(n, (shuffle or 0) ^ 0x5EED)
    place = np.fromiter((draw[i] for i in range(n)), np.int64, n)[order]
    ends = np.round(np.cumsum(shares) * n).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    return {
        name: order[(place >= start) & (place < end)]
        for name, start, end in zip(names, starts, ends, strict=True)
    }


class _Pieces:
    """What a result is made of: stretches of the source's ids, grouped into documents.

    Parameters
    ----------
    corpus : Corpus
    documents : ndarray
        Numbers of the documents, in order.
    """

    def __init__(self, corpus: Corpus, documents: Array) -> None:
        lengths = np.asarray(corpus.lengths, np.int64)
        starts = np.cumsum(lengths) - lengths
        self.corpus = corpus
        self.starts, self.sizes = starts[documents], lengths[documents]
        self.lengths = self.sizes
        self.pads: Array = np.zeros(len(documents), np.int64)  # ids of padding after each piece
        self.pad_id = 0

    @property
    def n_tokens(self) -> int:
        return int(self.lengths.sum())

    def ids(self) -> Iterator[Array]:
        """Yield the ids, joined into blocks worth writing."""
        held: list[Array] = []
        size = 0
        dtype = self.corpus.ids.dtype
        for start, n, pad in zip(
            self.starts.tolist(), self.sizes.tolist(), self.pads.tolist(), strict=True
        ):
            held.append(self.corpus.ids[start : start + n])
            if pad:
                held.append(np.full(pad, self.pad_id, dtype))
            size += n + pad
            if size >= _BLOCK:
                yield np.concatenate(held)
                held, size = [], 0
        if held:
            yield np.concatenate(held)

    def cut(self, window: int) -> _Pieces:
        """The same ids in windows; what is left over at the end goes."""
        n = self.n_tokens // window
        ends = np.cumsum(self.sizes)
        last = int(np.searchsorted(ends, n * window))
        if last < len(ends):
            self.sizes = self.sizes[: last + 1].copy()
            self.starts, self.pads = self.starts[: last + 1], self.pads[: last + 1]
            self.sizes[last] -= int(ends[last]) - n * window
        self.lengths = np.full(n, window, np.int64)
        return self

    def pack(self, window: int, pad_id: int) -> _Pieces:
        """Whole documents in windows, best fit; longer ones are cut into windows first."""
        starts, sizes = _no_longer_than(self.starts, self.sizes, window)
        bins: list[list[int]] = []
        # Windows by the room they have left: (room, number), smallest first.
        open_bins: list[tuple[int, int]] = []
        for piece, size in enumerate(sizes.tolist()):
            if size == 0:
                continue
            at = bisect_left(open_bins, (size, 0))
            if at < len(open_bins):
                room, number = open_bins.pop(at)
            else:
                room, number = window, len(bins)
                bins.append([])
            bins[number].append(piece)
            if room > size:
                insort(open_bins, (room - size, number))
                if len(open_bins) > _BLOCK:  # the least room is the least loss
                    open_bins.pop(0)
        order = np.array([piece for pieces in bins for piece in pieces], np.int64)
        self.starts, self.sizes = starts[order], sizes[order]
        self.pads = np.zeros(len(order), np.int64)
        at = 0
        for pieces in bins:
            at += len(pieces)
            self.pads[at - 1] = window - int(sizes[pieces].sum())
        self.lengths = np.full(len(bins), window, np.int64)
        self.pad_id = pad_id
        return self


def _no_longer_than(starts: Array, sizes: Array, window: int) -> tuple[Array, Array]:
    counts = np.maximum(1, -(-sizes // window))
    which = np.repeat(np.arange(len(sizes)), counts)
    part = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return starts[which] + part * window, np.minimum(window, sizes[which] - part * window)


def _write(folder: Path, corpus: Corpus, pieces: _Pieces, how: dict[str, Any], format: str) -> None:
    from rustllm.corpus.formats import choose_dtype

    options = corpus.manifest["options"]
    dtype = options["dtype"]
    if format != options["format"]:
        dtype = choose_dtype(format, options["n_vocab"], None)
    n_tokens, n_documents = pieces.n_tokens, len(pieces.lengths)
    parts = range(0, n_documents, _BLOCK)
    files = write_data(
        folder,
        format,
        dtype,
        n_tokens,
        n_documents,
        (block.astype(dtype, copy=False) for block in pieces.ids()),
        lambda: (pieces.lengths[i : i + _BLOCK] for i in parts),
    )
    share = n_tokens / len(corpus.ids) if len(corpus.ids) else 0.0
    write_manifest(
        folder,
        {
            **corpus.manifest,
            "plan": _fingerprint(how),
            "derived": how,
            "options": {**options, "format": format, "dtype": dtype},
            "tokens": n_tokens,
            "documents": n_documents,
            # Of the text only the whole is known: each part has its share of it.
            "text_bytes": round(corpus.manifest["text_bytes"] * share),
            "files": files,
            "sources": [],
        },
    )
