"""Train a WordPiece vocabulary as ``tokenizers`` does: merging pairs of marked pieces."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from rustllm.errors import ArgumentError
from rustllm.tokenizers.pipeline_tokenizer import PipelineTokenizer
from rustllm.tokenizers.word_counting import Progress, count_words, lines_of_files

__all__ = ["WordPieceTrainer", "merge_words"]

_MERGES_PER_REPORT = 256
_BREAKS = re.compile("[ \t\n\r]+")


class WordPieceTrainer:
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
        Called as ``progress(stage, done, total)``: "count" in bytes for files, "merge" in tokens.

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
        progress: Progress | None = None,
    ) -> None:
        if isinstance(special_tokens, str):
            raise ArgumentError("special_tokens must be a sequence of str", key="special_tokens")
        if not 0 < vocab_size < 1 << 31:
            raise ArgumentError(f"vocab_size {vocab_size} is out of range", key="vocab_size")
        if min_frequency < 0:
            raise ArgumentError("min_frequency must not be negative", key="min_frequency")
        self.special_tokens = list(dict.fromkeys([*special_tokens, unk_token]))
        if not all(self.special_tokens):
            raise ArgumentError("a special token must not be empty", key="special_tokens")
        self.vocab_size = vocab_size
        self.min_frequency = min_frequency
        self.limit_alphabet = limit_alphabet
        self.unk_token = unk_token
        self.prefix = continuing_subword_prefix
        self.progress = progress
        self.normalizer = {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": lowercase,
        }
        self.pre_tokenizer = {"type": "BertPreTokenizer"}

    def train(self, texts: Iterable[str]) -> PipelineTokenizer:
        """Train from strings."""
        words = count_words(texts, self.normalizer, self.pre_tokenizer, stretches=_BREAKS.split)
        return self._make(self._learn(words))

    def train_files(self, paths: Iterable[str | os.PathLike[str]]) -> PipelineTokenizer:
        """Train from files of UTF-8 text.

        Raises
        ------
        FileMissingError, FileAccessError, FileFormatError
            A file cannot be read or is not UTF-8.
        """
        return self.train(lines_of_files(paths, self.progress))

    def _learn(self, words: dict[str, int]) -> dict[str, int]:
        vocab = {token: id for id, token in enumerate(self.special_tokens)}
        letters: Counter[str] = Counter()
        for word, count in words.items():
            for char in word:
                letters[char] += count
        kept = sorted(letters, key=lambda char: (-letters[char], char))[: self.limit_alphabet]
        for char in sorted(kept):
            vocab.setdefault(char, len(vocab))
        known = set(kept) | vocab.keys()
        inner = sorted({char for word in words for char in word[1:] if char in known})
        for char in inner:
            vocab.setdefault(self.prefix + char, len(vocab))
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
        report = self.progress
        merge_words(
            spelt,
            vocab,
            self.vocab_size,
            self.min_frequency,
            self.prefix,
            None if report is None else lambda n: report("merge", n, self.vocab_size),
        )
        return vocab

    def _make(self, vocab: dict[str, int]) -> PipelineTokenizer:
        from rustllm.tokenizers.tokenizer_json import from_bytes

        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": vocab[token],
                    "content": token,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for token in self.special_tokens
            ],
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": None,
            "decoder": {"type": "WordPiece", "prefix": self.prefix, "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": self.unk_token,
                "continuing_subword_prefix": self.prefix,
                "max_input_chars_per_word": 100,
                "vocab": vocab,
            },
        }
        made: Any = from_bytes(json.dumps(content, ensure_ascii=False).encode(), "wordpiece")
        tokenizer: PipelineTokenizer = made
        return tokenizer


def merge_words(
    words: list[tuple[list[int], int]],
    vocab: dict[str, int],
    vocab_size: int,
    min_frequency: int = 0,
    prefix: str = "",
    progress: Any = None,
) -> list[tuple[int, int, int]]:
    """Merge the most frequent pair until `vocab` has `vocab_size` tokens.

    Parameters
    ----------
    words : list of (list of int, int)
        Symbols of each distinct word, which this changes, and its count.
    vocab : dict of str to int
        Gets the new tokens; one that is there already keeps its id.
    prefix : str
        What the right half of a merge loses.

    Returns
    -------
    list of (int, int, int)
        Left, right, made.

    Notes
    -----
    Ties go to the smaller pair of ids. The heap is lazy: counts that fell are corrected when they
    come up (Zouhar et al. 2023).
    """
    texts = {id: text for text, id in vocab.items()}
    counts: dict[tuple[int, int], int] = {}
    places: dict[tuple[int, int], set[int]] = {}
    for at, (symbols, count) in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            counts[pair] = counts.get(pair, 0) + count
            places.setdefault(pair, set()).add(at)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapify(heap)
    merges: list[tuple[int, int, int]] = []
    while heap and len(vocab) < vocab_size:
        count, pair = heappop(heap)
        now = counts.get(pair, 0)
        if now != -count:
            if now > 0:
                heappush(heap, (-now, pair))
            continue
        if now < 1 or now < min_frequency:
            break
        text = texts[pair[0]] + texts[pair[1]].removeprefix(prefix)
        made = vocab.setdefault(text, len(vocab))
        texts[made] = text
        merges.append((*pair, made))
        changed: set[tuple[int, int]] = set()
        for at in places.pop(pair):
            symbols, weight = words[at]
            for old in zip(symbols, symbols[1:]):
                counts[old] -= weight
            _join(symbols, pair, made)
            for new in zip(symbols, symbols[1:]):
                counts[new] = counts.get(new, 0) + weight
                if made in new:
                    places.setdefault(new, set()).add(at)
                    changed.add(new)
        counts.pop(pair, None)
        for new in changed:
            heappush(heap, (-counts[new], new))
        if progress is not None and len(merges) % _MERGES_PER_REPORT == 0:
            progress(len(vocab))
    if progress is not None:
        progress(len(vocab))
    return merges


def _join(symbols: list[int], pair: tuple[int, int], made: int) -> None:
    """Put `made` in place of each `pair`, from left to right."""
    left, right = pair
    out = 0
    at = 0
    n = len(symbols)
    while at < n:
        if symbols[at] == left and at + 1 < n and symbols[at + 1] == right:
            symbols[out] = made
            at += 2
        else:
            symbols[out] = symbols[at]
            at += 1
        out += 1
    del symbols[out:]
