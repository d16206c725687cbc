"""BPE as ``tokenizer.json`` describes it, with every option, for the texts that need them.

The plain cases go to the compiled encoder; this is the readable definition of all of them, a linked
list of symbols and a heap, O(n log n) in the length of a piece.
"""

from __future__ import annotations

from functools import cached_property
from heapq import heapify, heappop, heappush
from typing import Any

from rustllm.errors import FileFormatError, UnsupportedError
from rustllm.tokenizers.components import Fields
from rustllm.tokenizers.subword_model import PieceToken, SubwordModel, read_vocabulary

__all__ = ["BpeModel", "read_bpe"]


class BpeModel(SubwordModel):
    """Byte-pair encoding of one piece.

    Parameters
    ----------
    vocab : dict of str to int
    merges : list of (str, str)
        In the order of their ranks.
    unk_token : str, optional
        What stands for a symbol that is not in the vocabulary; without it such symbols vanish.
    continuing_subword_prefix, end_of_word_suffix : str
        Written before every symbol but the first, and behind the last.
    fuse_unk : bool
        A run of unknown symbols gives one token.
    byte_fallback : bool
        Unknown symbols are written as ``<0x..>`` tokens if all their bytes have one.
    ignore_merges : bool
        A piece that is a token is not merged.

    Raises
    ------
    FileFormatError
        A merge names a token that is not in the vocabulary.

    Notes
    -----
    Immutable.

    Examples
    --------
    >>> model = BpeModel({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
    >>> model.tokenize("abb")
    [(2, 0, 2), (1, 2, 3)]
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: list[tuple[str, str]],
        *,
        unk_token: str | None = None,
        continuing_subword_prefix: str = "",
        end_of_word_suffix: str = "",
        fuse_unk: bool = False,
        byte_fallback: bool = False,
        ignore_merges: bool = False,
    ) -> None:
        self.vocab = vocab
        self.tokens = {id: text for text, id in vocab.items()}
        self.merge_texts = merges
        self.unk_token = unk_token
        self.prefix = continuing_subword_prefix
        self.suffix = end_of_word_suffix
        self.fuse_unk = fuse_unk
        self.byte_fallback = byte_fallback
        self.ignore_merges = ignore_merges
        self.triples = self._triples()
        self.byte_ids = [vocab.get(f"<0x{byte:02X}>") for byte in range(256)]

    def _triples(self) -> list[tuple[int, int, int]]:
        """Ids of each merge: left, right, and what they make."""
        vocab = self.vocab
        skip = len(self.prefix)
        try:
            return [
                (vocab[left], vocab[right], vocab[left + right[skip:]])
                for left, right in self.merge_texts
            ]
        except KeyError as error:
            raise FileFormatError(
                f"a merge needs {error.args[0]!r}, which is not in the vocabulary",
                key="merges",
            ) from None

    @cached_property
    def ranks(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Left and right id to rank and merged id; a merge named twice has its last rank."""
        return {
            (left, right): (rank, merged) for rank, (left, right, merged) in enumerate(self.triples)
        }

    def tokenize(self, piece: str) -> list[PieceToken]:
        if self.ignore_merges and (whole := self.vocab.get(piece)) is not None:
            return [(whole, 0, len(piece))]
        symbols, starts, ends = self._symbols(piece)
        n = len(symbols)
        ranks = self.ranks
        after = list(range(1, n + 1))
        before = list(range(-1, n - 1))
        heap = []
        for i in range(n - 1):
            found = ranks.get((symbols[i], symbols[i + 1]))
            if found is not None:
                heap.append((found[0], i, found[1], symbols[i], symbols[i + 1]))
        heapify(heap)
        while heap:
            _, i, merged, left, right = heappop(heap)
            j = after[i]
            if symbols[i] != left or j >= n or symbols[j] != right:
                continue
            symbols[i] = merged
            symbols[j] = -1
            ends[i] = ends[j]
            k = after[i] = after[j]
            if k < n:
                before[k] = i
                found = ranks.get((merged, symbols[k]))
                if found is not None:
                    heappush(heap, (found[0], i, found[1], merged, symbols[k]))
            h = before[i]
            if h >= 0:
                found = ranks.get((symbols[h], merged))
                if found is not None:
                    heappush(heap, (found[0], h, found[1], symbols[h], merged))
        return [
            (id, start, end)
            for id, start, end in zip(symbols, starts, ends, strict=True)
            if id >= 0
        ]

    def _symbols(self, piece: str) -> tuple[list[int], list[int], list[int]]:
        """Ids of the characters of `piece` before any merge, and their spans."""
        vocab = self.vocab
        symbols: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        unknown: tuple[int, int] | None = None

        def add(id: int, start: int, end: int) -> None:
            symbols.append(id)
            starts.append(start)
            ends.append(end)

        unk_id = -1
        if self.unk_token is not None:
            unk_id = vocab.get(self.unk_token, -1)
        last = len(piece) - 1
        for i, char in enumerate(piece):
            text = char
            if self.prefix and i > 0:
                text = self.prefix + text
            if self.suffix and i == last:
                text += self.suffix
            id = vocab.get(text)
            if id is not None:
                if unknown is not None:
                    add(unk_id, *unknown)
                    unknown = None
                add(id, i, i + 1)
                continue
            if self.byte_fallback:
                spelt = [self.byte_ids[byte] for byte in text.encode("utf-8", "surrogatepass")]
                if None not in spelt:
                    for byte_id in spelt:
                        add(byte_id or 0, i, i + 1)
                    continue
            if self.unk_token is not None:
                if unk_id < 0:
                    raise FileFormatError(
                        f"the unknown token {self.unk_token!r} is not in the vocabulary",
                        key="unk_token",
                    )
                if unknown is not None and self.fuse_unk:
                    unknown = (unknown[0], i + 1)
                else:
                    if unknown is not None:
                        add(unk_id, *unknown)
                    unknown = (i, i + 1)
        if unknown is not None:
            add(unk_id, *unknown)
        return symbols, starts, ends

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "BPE",
            "dropout": None,
            "unk_token": self.unk_token,
            "continuing_subword_prefix": self.prefix or None,
            "end_of_word_suffix": self.suffix or None,
            "fuse_unk": self.fuse_unk,
            "byte_fallback": self.byte_fallback,
            "ignore_merges": self.ignore_merges,
            "vocab": self.vocab,
            "merges": [list(merge) for merge in self.merge_texts],
        }


def read_bpe(fields: Fields) -> BpeModel:
    """Read a BPE model; dropout is refused, for ids would be a matter of chance."""
    if fields.take("dropout", (float, int), None) not in (None, 0, 0.0):
        raise UnsupportedError("BPE with dropout is not implemented", key="dropout")
    vocab = read_vocabulary(fields)
    merges = []
    for merge in fields.take("merges", list):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], str)
        ):
            raise FileFormatError(f"{merge!r} is no merge", key="merges")
        merges.append((pair[0], pair[1]))
    return BpeModel(
        vocab,
        merges,
        unk_token=fields.take("unk_token", str, None),
        continuing_subword_prefix=fields.take("continuing_subword_prefix", str, None) or "",
        end_of_word_suffix=fields.take("end_of_word_suffix", str, None) or "",
        fuse_unk=fields.take("fuse_unk", bool, False),
        byte_fallback=fields.take("byte_fallback", bool, False),
        ignore_merges=fields.take("ignore_merges", bool, False),
    )
