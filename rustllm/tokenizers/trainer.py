"""Train a byte-level BPE vocabulary, with the merges that Hugging Face's ``tokenizers`` finds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rustllm._core.train import MergeLoop
from rustllm.errors import ArgumentError
from rustllm.tokenizers.byte_alphabet import BYTE_TO_CHAR, CHAR_TO_BYTE
from rustllm.tokenizers.pretoken_counting import Progress, TextCounts

if TYPE_CHECKING:
    from rustllm.tokenizers.trained import TrainedBpe

__all__ = ["BpeTrainer"]


class BpeTrainer:
    """Learn byte-pair merges from text.

    Parameters
    ----------
    vocab_size : int
        Number of tokens to stop at: special tokens, the 256 bytes, and merges.
    pattern : str or None
        How text is split before merging: a name such as "gpt2", "cl100k" or "o200k", a regular
        expression (needs the `regex` package), or None, with which merges may cross anything but
        line ends.
    special_tokens : sequence of str
        They get the first ids, in this order.
    min_frequency : int
        A pair that occurs less often is not merged.
    max_token_length : int, optional
        Tokens of this many bytes or more are not formed, except from two single bytes.
    num_threads : int, optional
        Threads to count with; all cores by default. The result does not depend on it.
    progress : callable, optional
        Called as ``progress(stage, done, total)``: "count" in bytes (for files) or texts (total 0),
        then "merge" in tokens.

    Notes
    -----
    Ids and merges are those of ``tokenizers``: special tokens, then the bytes in the order of their
    byte-level characters, then merges by falling count, ties to the smaller pair of ids. Counts
    have 64 bits. A trainer holds no state between calls; several threads may use one.

    Memory is that of the distinct pretokens. Time is linear in the text for counting, and grows
    with the occurrences merged for the rest; a text without any border takes near-linear time too.

    Sources of the algorithm: Sennrich et al. 2016; Zouhar et al. 2023 for the lazy heap.

    Examples
    --------
    >>> trained = BpeTrainer(vocab_size=260).train(["low lower lowest slow"])
    >>> trained.merges_as_text()
    [('l', 'o'), ('lo', 'w'), ('Ġ', 'low'), ('Ġlow', 'e')]
    """

    def __init__(
        self,
        vocab_size: int,
        pattern: str | None = "gpt2",
        special_tokens: Sequence[str] = (),
        min_frequency: int = 0,
        num_threads: int | None = None,
        *,
        max_token_length: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        if isinstance(special_tokens, str):
            raise ArgumentError("special_tokens must be a sequence of str", key="special_tokens")
        specials = list(dict.fromkeys(special_tokens))
        least = len({*specials, *CHAR_TO_BYTE})
        if not least <= vocab_size < 1 << 31:
            raise ArgumentError(
                f"vocab_size {vocab_size} is out of range",
                key="vocab_size",
                hint=f"{least} or more: every byte and every special token has an id",
            )
        if min_frequency < 0:
            raise ArgumentError("min_frequency must not be negative", key="min_frequency")
        if max_token_length is not None and max_token_length < 1:
            raise ArgumentError("max_token_length must be at least 1", key="max_token_length")
        if not all(specials):
            raise ArgumentError("a special token must not be empty", key="special_tokens")
        self.vocab_size = vocab_size
        self.pattern = pattern
        self.special_tokens = specials
        self.min_frequency = min_frequency
        self.max_token_length = max_token_length
        self.num_threads = num_threads
        self.progress = progress
        TextCounts(pattern, num_threads)  # complains about a bad pattern now, not after hours

    def count(self, texts: Iterable[str]) -> TextCounts:
        """Count the pretokens of `texts`, to be saved, merged, or trained from."""
        counts = TextCounts(self.pattern, self.num_threads)
        counts.add(texts, self.progress)
        return counts

    def count_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> TextCounts:
        """Count the pretokens of files; arguments and errors as in `TextCounts.add_files`."""
        counts = TextCounts(self.pattern, self.num_threads)
        counts.add_files(paths, self.progress, checkpoint)
        return counts

    def train(self, texts: Iterable[str]) -> TrainedBpe:
        """Train from strings, each split whole."""
        return self._merge(self.count(texts))

    def train_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> TrainedBpe:
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
        return self._merge(self.count_files(paths, checkpoint))

    def train_counts(self, counts: TextCounts) -> TrainedBpe:
        """Train from counts, which stay as they are.

        Raises
        ------
        ArgumentError
            The counts were split by another pattern.
        """
        own = TextCounts(self.pattern, self.num_threads)
        own.merge(counts)
        return self._merge(own)

    def _merge(self, counts: TextCounts) -> TrainedBpe:
        from rustllm.tokenizers.trained import TrainedBpe

        ids = {token: i for i, token in enumerate(self.special_tokens)}
        for char in sorted(CHAR_TO_BYTE):
            ids.setdefault(char, len(ids))
        byte_ids = [ids[BYTE_TO_CHAR[byte]] for byte in range(256)]
        # A merge can spell a special token only if that is written in the byte alphabet.
        spellings = {
            bytes([CHAR_TO_BYTE[char] for char in token]): i
            for token, i in ids.items()
            if all(char in CHAR_TO_BYTE for char in token)
        }
        loop = MergeLoop(byte_ids, spellings, len(ids), self.max_token_length)
        counts.counts.fill(loop, byte_ids)
        report = self.progress
        loop.run(
            # strings that no merge can spell count as well
            self.vocab_size - (len(ids) - len(spellings)),
            self.min_frequency,
            None if report is None else lambda n: report("merge", n, self.vocab_size),
        )
        return TrainedBpe(loop, {token: ids[token] for token in self.special_tokens}, self.pattern)
