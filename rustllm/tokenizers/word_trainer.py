"""What the trainers over counted words share: arguments, counting, count files, what is written."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from rustllm.errors import ArgumentError
from rustllm.tokenizers.pipeline_tokenizer import PipelineTokenizer
from rustllm.tokenizers.pretoken_counting import Progress, TextCounts
from rustllm.tokenizers.word_counting import Json, stretch_pattern, words_of_stretches

__all__ = ["WordTrainer"]


class WordTrainer(ABC):
    """Learns a vocabulary from words that a normalizer and a pre-tokenizer cut.

    A trainer holds no state between calls; several threads may use one.
    """

    kind: str

    def __init__(
        self,
        vocab_size: int,
        special_tokens: Sequence[str],
        normalizer: Json,
        pre_tokenizer: Json,
        num_threads: int | None,
        progress: Progress | None,
    ) -> None:
        if isinstance(special_tokens, str):
            raise ArgumentError("special_tokens must be a sequence of str", key="special_tokens")
        if not 0 < vocab_size < 1 << 31:
            raise ArgumentError(f"vocab_size {vocab_size} is out of range", key="vocab_size")
        self.special_tokens = list(dict.fromkeys(special_tokens))
        if not all(self.special_tokens):
            raise ArgumentError("a special token must not be empty", key="special_tokens")
        self.vocab_size = vocab_size
        self.normalizer = normalizer
        self.pre_tokenizer = pre_tokenizer
        self.num_threads = num_threads
        self.progress = progress
        self._pattern = stretch_pattern(normalizer, pre_tokenizer)
        self._n_threads = TextCounts(self._pattern, num_threads).num_threads

    def count(self, texts: Iterable[str]) -> TextCounts:
        """Count `texts`, each taken whole, to be saved, merged, or trained from."""
        counts = TextCounts(self._pattern, self.num_threads)
        counts.add(texts, self.progress)
        return counts

    def count_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> TextCounts:
        """Count files line by line; arguments and errors as in `TextCounts.add_files`."""
        counts = TextCounts(self._pattern, self.num_threads)
        counts.add_files(paths, self.progress, checkpoint)
        return counts

    def train(self, texts: Iterable[str]) -> PipelineTokenizer:
        """Train from strings."""
        return self.train_counts(self.count(texts))

    def train_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> PipelineTokenizer:
        """Train from files of UTF-8 text, read line by line.

        Parameters
        ----------
        paths : iterable of path
        checkpoint : path, optional
            A count file to resume from and to write; see `TextCounts.add_files`.

        Raises
        ------
        FileMissingError, FileAccessError, FileFormatError
            A file cannot be read or is not UTF-8.
        """
        return self.train_counts(self.count_files(paths, checkpoint))

    def train_counts(self, counts: TextCounts) -> PipelineTokenizer:
        """Train from counts, which stay as they are.

        Raises
        ------
        ArgumentError
            The counts are those of other stretches of text.
        """
        if counts.pattern != self._pattern:
            raise ArgumentError(
                f"counts by pattern {counts.pattern!r} are of no use here, where "
                f"{self._pattern!r} is needed",
                hint="count with this trainer, or with another one of its kind",
            )
        report = self.progress
        words = words_of_stretches(
            counts.items(),
            self.normalizer,
            self.pre_tokenizer,
            None if report is None else lambda done, total: report("words", done, total),
        )
        return self._make(self._learn(words))

    @abstractmethod
    def _learn(self, words: dict[str, int]) -> dict[str, Any]:
        """The ``model`` of a ``tokenizer.json``, from words in the order of their characters."""

    @abstractmethod
    def _decoder(self) -> dict[str, Any]:
        """The ``decoder`` of a ``tokenizer.json``."""

    def _make(self, model: dict[str, Any]) -> PipelineTokenizer:
        from rustllm.tokenizers.tokenizer_json import from_bytes

        vocab = model["vocab"]
        ids = vocab if isinstance(vocab, dict) else {item[0]: i for i, item in enumerate(vocab)}
        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": ids[token],
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
            "decoder": self._decoder(),
            "model": model,
        }
        made: Any = from_bytes(json.dumps(content, ensure_ascii=False).encode(), self.kind)
        tokenizer: PipelineTokenizer = made
        return tokenizer
