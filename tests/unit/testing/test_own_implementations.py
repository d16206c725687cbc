"""The library's own tokenizers pass the kit that others' have to pass."""

import pytest

import rustllm
from rustllm.testing import TokenizerConformance

CORPUS = [
    "the quick brown fox jumps over the lazy dog. " * 20,
    "don't panic, it's 42 naïve cafés — über 数字 한국어 👩‍👩‍👧‍👦 " * 10,
    "for i in range(10):\n    print(i)\n" * 20,
]


@pytest.fixture(scope="module")
def encoding():
    ranks = rustllm.BpeTrainer(600).train(CORPUS).mergeable_ranks()
    specials = {"<end>": len(ranks), "<pad>": len(ranks) + 1}
    return rustllm.Encoding("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=specials)


class TestBytePairEncoding(TokenizerConformance):
    @pytest.fixture(autouse=True)
    def _take(self, encoding):
        self.encoding = encoding

    def make(self):
        return self.encoding
