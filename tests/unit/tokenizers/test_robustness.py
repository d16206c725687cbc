"""Text and ids that nobody meant to send, to a tokenizer of every kind: results or typed errors."""

import numpy as np
import pytest
from paths import SHARED, needs_shared

import rustllm
from rustllm.errors import ArgumentError, RustLLMError, UnknownTokenError

pytestmark = needs_shared
MODELS = SHARED / "conformance/models" if SHARED else None
KINDS = {
    "byte-level": "tokenizers/gpt2.json",
    "wordpiece": "tokenizers/bert_base_cased.json",
    "byte fallback": "tokenizers/llama2.json",
    "metaspace": "tokenizers/mistral03.json",
    "nfc": "tokenizers/gpt_neox.json",
    "sentencepiece": "sentencepiece/llama2.model",
    "ranks": "tiktoken/cl100k_base.tiktoken",
}
N = 300_000  # quadratic time would be minutes
LONG = {
    "one letter": "a" * N,
    "carets": "^" * N,
    "spaces": " " * N,
    "line ends": "\n" * N,
    "digits": "1" * N,
    "NULs": "\0" * N,
    "marks": "a" + "\u0301\u0323" * (N // 4),
    "surrogates": "\ud800" * (N // 4),
    "space marks": "▁" * (N // 4),
    "emoji": "😀" * (N // 8),
    "one word": "".join(map(chr, np.random.default_rng(0).integers(97, 123, N))),
    "bytes": np.random.default_rng(1).bytes(N).decode("utf-8", "replace"),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return rustllm.load_tokenizer(MODELS / KINDS[request.param])


@pytest.mark.parametrize("name", LONG)
def test_long_texts_take_no_quadratic_time(tokenizer, name):
    ids = tokenizer.encode_ordinary(LONG[name])
    assert tokenizer.count(LONG[name]) == len(ids)
    assert isinstance(tokenizer.decode(ids), str)


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "\ufeffa", "\ufffd", "\U0010ffff", "a\u2028b"])
def test_odd_characters_do_not_change_what_is_around(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.encode_batch([text, "x"])[0] == ids
    assert tokenizer.encode_to_numpy(text).tolist() == ids
    tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800 c"])
def test_lone_surrogates_give_ids_or_a_typed_error(tokenizer, text):
    try:
        ids = tokenizer.encode(text)
    except RustLLMError:
        return
    assert all(0 <= id < tokenizer.n_vocab for id in ids)
    assert isinstance(tokenizer.decode(ids), str)


@pytest.mark.parametrize("id", [-1, 1 << 20, 1 << 31, 1 << 40])
def test_ids_that_are_none_are_named(tokenizer, id):
    for call in (
        lambda: tokenizer.id_to_bytes(id),
        lambda: tokenizer.decode([id]),
        lambda: tokenizer.decode_bytes([0, id]),
        lambda: tokenizer.stream_decoder().push(id),
    ):
        with pytest.raises((UnknownTokenError, ArgumentError, OverflowError)) as caught:
            call()
        assert isinstance(caught.value, RustLLMError), caught.value


def test_bytes_that_are_no_utf8_decode_as_asked():
    enc = rustllm.get_encoding("cl100k_base", vocab=MODELS / KINDS["ranks"])
    ids = enc._encode_bytes(b"a\xff\xfeb")
    assert enc.decode_bytes(ids) == b"a\xff\xfeb"
    assert enc.decode(ids) == "a\ufffd\ufffdb" and enc.decode(ids, "ignore") == "ab"
    with pytest.raises(UnicodeDecodeError):
        enc.decode(ids, "strict")
