"""Tokenizers that GGUF files carry, against the reference vectors."""

import json
import pickle

import pytest
from paths import SHARED, needs_shared

from rustllm.errors import FileFormatError, UnsupportedError
from rustllm.loaders.gguf import GGUFFile
from rustllm.tokenizers.gguf import tokenizer_from_gguf


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def named(request):
    with GGUFFile(request.getfixturevalue(f"{request.param}_path")) as file:
        return request.param, tokenizer_from_gguf(file)


@needs_shared
def test_ids_equal_the_reference_vectors_and_decode_to_the_text(named):
    name, tokenizer = named
    for case in json.loads((SHARED / "vectors/tokens_smollm2_gemma3.json").read_text()):
        ids = tokenizer.encode(case["text"], allowed_special="all")
        assert ids == case[name], case["text"]
        assert tokenizer.decode_bytes(ids) == case["text"].encode()
        again = pickle.loads(pickle.dumps(tokenizer))
        assert again.encode(case["text"], allowed_special="all") == ids


def test_the_ids_that_begin_and_end_text_are_those_of_the_file(named):
    name, tokenizer = named
    begin, end = {"smollm2": (1, 2), "gemma3": (2, 1)}[name]
    assert (tokenizer.bos_id, tokenizer.eos_id) == (begin, end)
    assert end in tokenizer.end_ids
    assert tokenizer.add_bos == (name == "gemma3")


class Metadata:
    path = "made-up.gguf"

    def __init__(self, **keys):
        self.metadata = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


TOKENS = [*"abcĠ", "ab", "<e>"]
GOOD = {
    "model": "gpt2",
    "pre": "gpt-2",
    "tokens": TOKENS,
    "merges": ["a b"],
    "token_type": [1, 1, 1, 1, 1, 3],
}


def test_a_small_byte_level_vocabulary():
    tokenizer = tokenizer_from_gguf(Metadata(**GOOD))
    assert tokenizer.encode("abc ab<e>", allowed_special="all") == [4, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "error", "key"),
    [
        ({"pre": "no-such"}, UnsupportedError, "pre"),
        ({"model": "rwkv"}, UnsupportedError, "model"),
        ({"model": 3}, FileFormatError, "model"),
        ({"tokens": None}, FileFormatError, "tokens"),
        ({"merges": ["a b", "a z"]}, FileFormatError, "merges"),
        ({"merges": ["ab"]}, FileFormatError, "merges"),
        ({"token_type": [1]}, FileFormatError, "token_type"),
        ({"eos_token_id": 6}, FileFormatError, "eos_token_id"),
        ({"model": "llama"}, FileFormatError, "scores"),
    ],
)
def test_a_contradiction_names_its_key(change, error, key):
    with pytest.raises(error) as caught:
        tokenizer_from_gguf(Metadata(**{**GOOD, **change}))
    assert caught.value.key == f"tokenizer.ggml.{key}"


def test_scores_decide_and_bytes_spell_the_rest():
    tokens = ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "ab", "▁a", "▁▁"]
    kinds = [2, *[6] * 256, 1, 1, 1, 1, 1, 4]
    scores = [0.0] * 260 + [-2.0, -1.0, 0.0]
    tokenizer = tokenizer_from_gguf(
        Metadata(
            model="llama", tokens=tokens, scores=scores, token_type=kinds, add_space_prefix=False
        )
    )
    spelled = [tokenizer.id_to_bytes(i) for i in tokenizer.encode(" abab é")]
    assert spelled == [b" a", b"b", b"ab", b" ", b"\xc3", b"\xa9"]
    assert tokenizer.decode(tokenizer.encode("▁a")) == " a"
