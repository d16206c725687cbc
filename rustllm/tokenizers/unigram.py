"""The Unigram model: the most probable way to write a piece, by Viterbi's algorithm."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from rustllm._core.unigram import UnigramEncoder
from rustllm.errors import FileFormatError, TokenizerError
from rustllm.tokenizers.components import Fields
from rustllm.tokenizers.subword_model import PieceToken, SubwordModel

__all__ = ["UnigramModel", "read_unigram"]

_UNKNOWN_PENALTY = 10.0


class UnigramModel(SubwordModel):
    """Best segmentation of a piece by the sum of scores.

    Parameters
    ----------
    pieces : list of (str, float)
        Tokens in the order of their ids, with their log probabilities.
    unk_id : int, optional
        What stands for characters that are in no token; runs of them give one.
    byte_fallback : bool
        Such runs are written as ``<0x..>`` tokens if all their bytes have one.

    Notes
    -----
    Immutable. Time is linear in the length of a piece, times the length of the longest token.

    Examples
    --------
    >>> model = UnigramModel([("<unk>", 0.0), ("a", -2.0), ("b", -2.0), ("ab", -3.0)], 0)
    >>> model.tokenize("aabz")
    [(1, 0, 1), (3, 1, 3), (0, 3, 4)]
    """

    def __init__(
        self,
        pieces: list[tuple[str, float]],
        unk_id: int | None = None,
        byte_fallback: bool = False,
    ) -> None:
        self.pieces = pieces
        self.unk_id = unk_id
        self.byte_fallback = byte_fallback
        self.vocab = {text: id for id, (text, _) in enumerate(pieces)}
        self.tokens = {id: text for id, (text, _) in enumerate(pieces)}
        self.scores = {text: pieces[id][1] for text, id in self.vocab.items()}
        self._longest = max(map(len, self.vocab), default=0)
        self._unk_score = min((score for _, score in pieces), default=0.0) - _UNKNOWN_PENALTY
        self.byte_ids = [self.vocab.get(f"<0x{byte:02X}>") for byte in range(256)]
        self.encoder = self._compile()

    def _compile(self) -> UnigramEncoder | None:
        """The compiled encoder, if every byte that is not in a token has a token or none has."""
        fallback = None
        if self.byte_fallback:
            if None in self.byte_ids:
                return None
            fallback = [id or 0 for id in self.byte_ids]
        entries = [
            (text.encode("utf-8", "surrogatepass"), id, self.scores[text])
            for text, id in self.vocab.items()
            if text
        ]
        return UnigramEncoder(
            entries, -1 if self.unk_id is None else self.unk_id, self._unk_score, fallback
        )

    def ids(self, piece: str) -> list[int]:
        if self.encoder is None or (self.byte_fallback and self.unk_text in piece):
            return super().ids(piece)
        try:
            ids: list[int] = self.encoder.encode_piece(piece).tolist()
        except KeyError:
            raise self._cannot_spell(piece) from None
        return ids

    @cached_property
    def unk_text(self) -> str:
        """Spelling of the unknown token, which text may hold; "" for none."""
        return "" if self.unk_id is None else self.pieces[self.unk_id][0]

    def _cannot_spell(self, piece: str) -> TokenizerError:
        return TokenizerError(
            f"{piece[:40]!r} holds a character that is in no token, and there is no unknown token"
        )

    def tokenize(self, piece: str) -> list[PieceToken]:
        n = len(piece)
        scores = self.scores
        best = [0.0] * (n + 1)
        start_of: list[int | None] = [None] * (n + 1)
        unknown = [False] * (n + 1)
        for start in range(n):
            here = best[start]
            single = False
            for end in range(start + 1, min(n, start + self._longest) + 1):
                score = scores.get(piece[start:end])
                if score is None:
                    continue
                if start_of[end] is None or here + score > best[end]:
                    best[end] = here + score
                    start_of[end] = start
                    unknown[end] = self.vocab[piece[start:end]] == self.unk_id
                single = single or end == start + 1
            if not single:
                end = start + 1
                if start_of[end] is None or here + self._unk_score > best[end]:
                    if self.unk_id is None:
                        raise self._cannot_spell(piece)
                    best[end] = here + self._unk_score
                    start_of[end] = start
                    unknown[end] = True
        spans: list[tuple[int, int]] = []
        end = n
        fusing = False
        while end > 0:
            start = start_of[end] or 0
            if fusing and unknown[end]:
                spans[-1] = (start, spans[-1][1])
            else:
                spans.append((start, end))
            fusing = unknown[end]
            end = start
        out: list[PieceToken] = []
        for start, end in reversed(spans):
            id = self.vocab.get(piece[start:end])
            if id is None:
                if self.byte_fallback:
                    data = piece[start:end].encode("utf-8", "surrogatepass")
                    spelt = [self.byte_ids[byte] for byte in data]
                    if None not in spelt:
                        out += [(byte_id or 0, start, end) for byte_id in spelt]
                        continue
                id = self.unk_id
            out.append((0 if id is None else id, start, end))
        return out

    def token_text(self, id: int, covered: str) -> str:
        text = self.tokens[id]
        return text if self.byte_fallback and id in self._byte_id_set else covered

    @cached_property
    def _byte_id_set(self) -> frozenset[int | None]:
        return frozenset(self.byte_ids)

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "Unigram",
            "unk_id": self.unk_id,
            "vocab": [list(piece) for piece in self.pieces],
            "byte_fallback": self.byte_fallback,
        }


def read_unigram(fields: Fields) -> UnigramModel:
    """Read a Unigram model."""
    pieces = []
    for item in fields.take("vocab", list):
        if not (
            isinstance(item, list)
            and len(item) == 2
            and isinstance(item[0], str)
            and isinstance(item[1], float | int)
        ):
            raise FileFormatError(f"{item!r} is no piece with a score", key="vocab")
        pieces.append((item[0], float(item[1])))
    unk_id: int | None = fields.take("unk_id", int, None)
    if unk_id is not None and not 0 <= unk_id < len(pieces):
        raise FileFormatError(f"unk_id {unk_id} is outside the vocabulary", key="unk_id")
    return UnigramModel(pieces, unk_id, fields.take("byte_fallback", bool, False))
