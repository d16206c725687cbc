"""The library's own tokenizers pass the kit that others' have to pass."""

import pytest

from rustllm.testing import TokenizerConformance

CORPUS = [
    "the quick brown fox jumps over the lazy dog. " * 20,
    "don't panic, it's 42 naïve cafés — über 数字 한국어 👩‍👩‍👧‍👦 " * 10,
    "for i in range(10):\n    print(i)\n" * 20,
]


@pytest.fixture(scope="module")
def trained():
    import rustllm

    trainer = rustllm.BpeTrainer(600, special_tokens=("<end>", "<pad>"))
    return trainer.train(CORPUS)


class TestTrainedBpe(TokenizerConformance):
    @pytest.fixture(autouse=True)
    def _take(self, trained):
        self.trained = trained

    def make(self):
        return self.trained
