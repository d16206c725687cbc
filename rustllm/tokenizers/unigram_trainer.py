"""Train a Unigram vocabulary, as ``tokenizers`` and SentencePiece do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rustllm.errors import ArgumentError
from rustllm.tokenizers.pretoken_counting import Progress
from rustllm.tokenizers.unigram_learning import learn_pieces
from rustllm.tokenizers.word_counting import Json
from rustllm.tokenizers.word_trainer import WordTrainer

__all__ = ["METASPACE", "NMT_NFKC", "UnigramTrainer"]

NMT_NFKC: dict[str, Any] = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Nmt"},
        {"type": "NFKC"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    ],
}
METASPACE: dict[str, Any] = {
    "type": "Metaspace",
    "replacement": "▁",
    "prepend_scheme": "always",
    "split": True,
}
_LONGEST = 250
_MOST_SEEDS = 16_000_000
_PENALTY = 0.0001


class UnigramTrainer(WordTrainer):
    """Learn pieces and their probabilities from text.

    Parameters
    ----------
    vocab_size : int
        Number of tokens: special tokens, all characters of the text, and pieces.
    special_tokens : sequence of str
        They get the first ids, in this order.
    unk_token : str or None
        What stands for characters that are in no token; the first token if `special_tokens` does
        not have it. None makes text with such characters an error.
    initial_alphabet : iterable of str
        Characters to have, whether they are in the text or not; of each str the first one.
    shrinking_factor : float
        Part of the pieces that one round of pruning leaves.
    max_piece_length : int
        Most characters of a piece, at most 250.
    n_sub_iterations : int
        Rounds of expectation and maximisation before each pruning.
    seed_size : int
        Most pieces to start from.
    normalizer, pre_tokenizer : dict or None
        As in ``tokenizer.json``; by default what SentencePiece does: NMT's clean-up, NFKC, single
        spaces, words marked with U+2581.
    num_threads : int, optional
        All cores by default. The result does not depend on it.
    progress : callable, optional
        Called as ``progress(stage, done, total)``: "count" in bytes for files, "words" in stretches
        of text, "pieces" in pieces left (total: those to be left).

    Notes
    -----
    Seeds, expectation and maximisation give the pieces and scores of ``tokenizers``. Pruning ranks
    pieces as it is described there, yet not all come out alike: of 8,000 pieces of English 94 in a
    hundred are the same, at a better likelihood and one in a hundred tokens more. Counts have 64
    bits. A trainer holds no state between calls.

    Memory is that of the distinct words: 16 bytes a character and 4 for each place where a seed
    matches. Time is near linear in their characters, times the number of rounds.

    Source of the algorithm: Kudo 2018, "Subword regularization".

    Examples
    --------
    >>> trained = UnigramTrainer(14, max_piece_length=4).train(["low lower lowest", "slow lowest"])
    >>> trained.n_vocab, trained.decode(trained.encode("slower low"))
    (12, 'slower low')
    """

    kind = "unigram"

    def __init__(
        self,
        vocab_size: int = 8000,
        special_tokens: Sequence[str] = (),
        *,
        unk_token: str | None = "<unk>",
        initial_alphabet: Iterable[str] = (),
        shrinking_factor: float = 0.75,
        max_piece_length: int = 16,
        n_sub_iterations: int = 2,
        seed_size: int = 1_000_000,
        normalizer: Json = NMT_NFKC,
        pre_tokenizer: Json = METASPACE,
        num_threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        if unk_token == "":
            raise ArgumentError("unk_token must not be empty", key="unk_token")
        for key, value, least, most in (
            ("max_piece_length", max_piece_length, 1, _LONGEST),
            ("n_sub_iterations", n_sub_iterations, 1, 1000),
            ("seed_size", seed_size, 1, _MOST_SEEDS),
        ):
            if not least <= value <= most:
                raise ArgumentError(f"{key} must be {least} to {most}, got {value}", key=key)
        if not 0.0 < shrinking_factor < 1.0:
            raise ArgumentError(
                f"shrinking_factor must be between 0 and 1, got {shrinking_factor}",
                key="shrinking_factor",
            )
        super().__init__(
            vocab_size, special_tokens, normalizer, pre_tokenizer, num_threads, progress
        )
        self.unk_token = unk_token
        self.initial_alphabet = sorted({text[0] for text in initial_alphabet if text})
        self.shrinking_factor = shrinking_factor
        self.max_piece_length = max_piece_length
        self.n_sub_iterations = n_sub_iterations
        self.seed_size = seed_size

    def _learn(self, words: dict[str, int]) -> dict[str, Any]:
        first = list(self.special_tokens)
        if self.unk_token is not None and self.unk_token not in first:
            first.insert(0, self.unk_token)
        letters = sorted({char for word in words for char in word}.union(self.initial_alphabet))
        letters = [char for char in letters if char not in first]
        room = self.vocab_size - len(first)
        if len(letters) > room:
            raise ArgumentError(
                f"vocab_size {self.vocab_size} has no room for {len(letters)} characters and "
                f"{len(first)} other tokens",
                key="vocab_size",
                hint=f"ask for {len(letters) + len(first)} or more, or normalize the text further",
            )
        report = self.progress
        learnt = learn_pieces(
            words,
            self.vocab_size,
            max_piece_length=self.max_piece_length,
            shrinking_factor=self.shrinking_factor,
            n_sub_iterations=self.n_sub_iterations,
            seed_size=self.seed_size,
            n_threads=self._n_threads,
            report=None if report is None else lambda n: report("pieces", n, self.vocab_size),
        )
        scores = dict(learnt)
        least = min(scores.values(), default=0.0)
        pieces: dict[str, float] = {}
        missing = 0
        for char in letters:
            if char in scores:
                pieces[char] = scores[char]
            else:
                pieces[char] = least + missing * _PENALTY
                missing += 1
        for piece, score in learnt:
            if len(pieces) >= room:
                break
            if piece not in pieces and piece not in first:
                pieces[piece] = score
        vocab = [[token, 0.0] for token in first]
        vocab += [
            [piece, score]
            for piece, score in sorted(pieces.items(), key=lambda item: -item[1])
            if math.isfinite(score)
        ]
        return {
            "type": "Unigram",
            "unk_id": None if self.unk_token is None else first.index(self.unk_token),
            "vocab": vocab,
            "byte_fallback": False,
        }

    def _decoder(self) -> dict[str, Any]:
        cuts = self.pre_tokenizer or {}
        last = cuts["pretokenizers"][-1] if cuts.get("pretokenizers") else cuts
        if last.get("type") == "Metaspace":
            return dict(last)
        return {"type": "Fuse"}
