"""Training vocabularies: counting, merging, text without borders, WordPiece, Unigram."""

import random
from pathlib import Path

from rustllm.tokenizers.pretoken_counting import TextCounts
from rustllm.tokenizers.trainer import BpeTrainer
from rustllm.tokenizers.unigram_trainer import UnigramTrainer
from rustllm.tokenizers.wordpiece_trainer import WordPieceTrainer


def _words(n_words: int, seed: int = 0) -> list[str]:
    """Words with the frequencies of a natural language (Zipf) and a few thousand stems."""
    rng = random.Random(seed)
    stems = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 5))) for _ in range(3000)]
    vocabulary = ["".join(rng.choices(stems, k=rng.randint(1, 3))) for _ in range(30_000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    return rng.choices(vocabulary, weights, k=n_words)


class TrainFiles:
    """From a file of text to merges; 8k and 32k tokens."""

    params = [[8192, 32768]]
    param_names = ["vocab_size"]

    def setup_cache(self) -> str:
        with Path("training.txt").open("w", encoding="utf-8") as file:
            words = _words(500_000)
            for i in range(0, len(words), 12):
                file.write(" ".join(words[i : i + 12]) + ".\n")
        return "training.txt"

    def time_train(self, path: str, vocab_size: int) -> None:
        BpeTrainer(vocab_size).train_files([path]).merges_as_text()

    def peakmem_train(self, path: str, vocab_size: int) -> None:
        BpeTrainer(vocab_size).train_files([path]).merges_as_text()


class CountFiles:
    """Splitting and counting alone, by number of threads."""

    params = [[1, 2], ["gpt2", "o200k"]]
    param_names = ["num_threads", "pattern"]
    setup_cache = TrainFiles.setup_cache

    def time_count(self, path: str, num_threads: int, pattern: str) -> None:
        TextCounts(pattern, num_threads).add_files([path])


class TrainWithoutBorders:
    """One line of letters: every merge could reach the whole text."""

    params = [[1_000_000, 4_000_000]]
    param_names = ["n_letters"]

    def setup(self, n_letters: int) -> None:
        self.text = "".join(_words(n_letters // 5))[:n_letters]

    def time_train(self, n_letters: int) -> None:
        BpeTrainer(4096).train([self.text])


class TrainWords:
    """WordPiece and Unigram, from a file of text to a tokenizer."""

    params = [["wordpiece", "unigram"]]
    param_names = ["kind"]
    setup_cache = TrainFiles.setup_cache

    def time_train(self, path: str, kind: str) -> None:
        trainer = WordPieceTrainer(8000) if kind == "wordpiece" else UnigramTrainer(8000)
        trainer.train_files([path])

    def peakmem_train(self, path: str, kind: str) -> None:
        self.time_train(path, kind)
