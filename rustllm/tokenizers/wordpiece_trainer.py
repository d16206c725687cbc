"""Train a WordPiece vocabulary as ``tokenizers`` does: merging pairs of marked pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rustllm._core.train import MergeLoop
from rustllm.errors import ArgumentError
from rustllm.tokenizers.pretoken_counting import Progress
from rustllm.tokenizers.word_trainer import WordTrainer

__all__ = ["WordPieceTrainer"]


class WordPieceTrainer(WordTrainer):
    """Learn a WordPiece vocabulary from text.

    Parameters
    ----------
    vocab_size : int
        Number of tokens to stop at.
    special_tokens : sequence of str
        They get the first ids; `unk_token` is put among them if it is missing.
    min_frequency : int
        A pair that occurs less often is not merged.
    lowercase : bool
        Lower case, and no accents, as in BERT's uncased models.
    limit_alphabet : int, optional
        Characters to keep, the most frequent ones; words lose the others.
    unk_token, continuing_subword_prefix : str
    progress : callable, optional
        Called as ``progress(stage, done, total)``: "count" in bytes for files, "words" in stretches
        of text, "merge" in tokens.
    num_threads : int, optional
        Threads to count with; all cores by default. The result does not depend on it.

    Notes
    -----
    Text is cleaned and cut as BERT does. The merges are those of ``tokenizers``, whose vocabularies
    differ from run to run in the ids of single characters that continue a word and so in ties; here
    those characters come in the order of their code points, and the same text always gives the same
    file. Time grows with the occurrences that are merged. A trainer holds no state between calls.

    Examples
    --------
    >>> trained = WordPieceTrainer(20, ["[UNK]"]).train(["low lower lowest", "slow lowest"])
    >>> trained.encode("lowest"), trained.id_to_bytes(19)
    ([19], b'lowest')
    """

    kind = "wordpiece"

    def __init__(
        self,
        vocab_size: int,
        special_tokens: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        min_frequency: int = 0,
        *,
        lowercase: bool = True,
        limit_alphabet: int | None = None,
        unk_token: str = "[UNK]",
        continuing_subword_prefix: str = "##",
        num_threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        if isinstance(special_tokens, str):
            raise ArgumentError("special_tokens must be a sequence of str", key="special_tokens")
        if min_frequency < 0:
            raise ArgumentError("min_frequency must not be negative", key="min_frequency")
        normalizer = {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": lowercase,
        }
        super().__init__(
            vocab_size,
            [*special_tokens, unk_token],
            normalizer,
            {"type": "BertPreTokenizer"},
            num_threads,
            progress,
        )
        self.min_frequency = min_frequency
        self.limit_alphabet = limit_alphabet
        self.unk_token = unk_token
        self.prefix = continuing_subword_prefix

    def _learn(self, words: dict[str, int]) -> dict[str, Any]:
        vocab = {token: id for id, token in enumerate(self.special_tokens)}
        letters: Counter[str] = Counter()
        for word, count in words.items():
            for char in word:
                letters[char] += count
        kept = sorted(letters, key=lambda char: (-letters[char], char))[: self.limit_alphabet]
        for char in sorted(kept):
            vocab.setdefault(char, len(vocab))
        known = set(kept) | vocab.keys()
        for char in sorted({char for word in words for char in word[1:]} & known):
            vocab.setdefault(self.prefix + char, len(vocab))
        if self.prefix and any(word[0] == self.prefix[0] for word in words if len(word) > 1):
            self._merge_by_spelling(words, vocab, known)
        else:
            self._merge(words, vocab, known)
        return {
            "type": "WordPiece",
            "unk_token": self.unk_token,
            "continuing_subword_prefix": self.prefix,
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        }

    def _merge(self, words: dict[str, int], vocab: dict[str, int], known: set[str]) -> None:
        prefix = self.prefix
        loop = MergeLoop(
            [],
            {token.encode("utf-8"): id for token, id in vocab.items()},
            len(vocab),
            prefix=prefix.encode("utf-8"),
            by_character=True,
        )
        loop.add_characters(
            list(words),
            list(words.values()),
            {char: vocab[char] for char in known if char in vocab},
            {char: vocab[prefix + char] for char in known if prefix + char in vocab},
        )
        report = self.progress
        loop.run(
            self.vocab_size,
            self.min_frequency,
            None if report is None else lambda n: report("merge", n, self.vocab_size),
        )
        strings = loop.token_strings()
        for id in range(len(vocab), len(strings)):
            vocab[strings[id].decode("utf-8")] = id

    def _merge_by_spelling(
        self, words: dict[str, int], vocab: dict[str, int], known: set[str]
    ) -> None:
        """The slow way, for words that start like the prefix: a spelling may mean two things."""
        from rustllm.tokenizers.wordpiece_merges_ref import merge_words

        spelt = [
            (
                [
                    vocab[self.prefix + char if i else char]
                    for i, char in enumerate(word)
                    if char in known
                ],
                count,
            )
            for word, count in words.items()
        ]
        merge_words(spelt, vocab, self.vocab_size, self.min_frequency, self.prefix)

    def _decoder(self) -> dict[str, Any]:
        return {"type": "WordPiece", "prefix": self.prefix, "cleanup": True}
