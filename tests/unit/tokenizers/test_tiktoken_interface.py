"""tiktoken's interface beyond ids: names of arguments, plugins, and streams of text."""

import inspect
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rustllm
from rustllm import BpeTrainer, get_encoding, list_encoding_names
from rustllm.errors import ArgumentError, DisallowedSpecialTokenError, PluginError
from rustllm.testing import ByteTokenizer
from rustllm.tokenizers import Encoding, tiktoken_plugins
from rustllm.tokenizers.stream_encoder import StreamEncoder

CORPUS = ["the cat sat on the mat, naïve café 😀 日本語 1234567\n\n  indented 'll can't " * 3]
ALPHABET = "the cat's 1234567\n\r\t '/é😀日,.<end>STREET ́"
PATTERNS = ["gpt2", "cl100k", "o200k", "qwen2", "smollm", "tekken", "deepseek"]


def test_every_method_of_tiktoken_with_its_arguments():
    theirs = pytest.importorskip("tiktoken").Encoding
    for name in dir(theirs):
        if name.startswith("__"):
            continue
        found = inspect.getattr_static(theirs, name)
        own = inspect.getattr_static(Encoding, name)
        if not inspect.isfunction(found):
            continue
        wanted = inspect.signature(found).parameters
        given = inspect.signature(own).parameters
        if name in ("encode_batch", "encode_ordinary_batch"):  # any iterable of texts
            wanted = {"texts" if n == "text" else n: p for n, p in wanted.items()}
        assert wanted.keys() <= given.keys(), name
        for argument, parameter in wanted.items():
            if parameter.default is not inspect.Parameter.empty:
                assert given[argument].default is not inspect.Parameter.empty


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package that offers encodings as tiktoken's plugins do."""
    folder = tmp_path / "tiktoken_ext"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("tiktoken_ext")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(tiktoken_plugins, "_found", None)
    monkeypatch.setattr("rustllm.tokenizers.registry._made", {})
    return folder / "a_plugin.py"


BYTES = {bytes([i]): i for i in range(256)}


@pytest.mark.parametrize(
    ("ranks", "special", "n_vocab", "said"),
    [
        ({**BYTES, b"ab": 255}, {}, None, "distinct"),
        ({**BYTES, b"ab": -1}, {}, None, "not negative"),
        ({**BYTES, b"": 256}, {}, None, "no bytes"),
        (BYTES, {"<end>": 256}, 256, "explicit_n_vocab is 256, but there are 257"),
        (BYTES, {"<end>": 300}, 257, "largest id is 300"),
        (BYTES, {"<end>": 3}, None, "3"),
    ],
)
def test_an_encoding_that_cannot_be_is_refused(ranks, special, n_vocab, said):
    with pytest.raises(ArgumentError, match=said):
        Encoding(
            "toy",
            pat_str="gpt2",
            mergeable_ranks=ranks,
            special_tokens=special,
            explicit_n_vocab=n_vocab,
        )


def test_an_encoding_tells_its_tokens_as_tiktokens_does():
    ranks = {**BYTES, b"ab": 256}
    enc = Encoding(
        "toy", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={"<end>": 258},
    )  # fmt: skip
    assert enc._mergeable_ranks == ranks and enc._special_tokens == {"<end>": 258}
    assert enc.is_special_token(258) and not enc.is_special_token(256)
    assert enc.decode_single_token_bytes(256) == b"ab"
    with pytest.raises(KeyError):
        enc.decode_single_token_bytes(257)
    assert enc.decode_batch([[256, 99], [258]]) == ["abc", "<end>"]
    assert enc._encode_only_native_bpe("abc") == enc.encode_ordinary("abc") == [256, 99]
    with pytest.raises(TypeError, match="collection"):
        enc.encode("abc", disallowed_special="<end>")


def test_a_plugin_of_tiktoken_adds_encodings(plugin):
    plugin.write_text(
        "def toy():\n"
        "    ranks = {bytes([b]): b for b in range(256)} | {b'ab': 256}\n"
        "    return {'name': 'toy', 'pat_str': 'gpt2', 'mergeable_ranks': ranks,\n"
        "            'special_tokens': {'<end>': 257}}\n"
        "ENCODING_CONSTRUCTORS = {'toy': toy, 'cl100k_base': None}\n"
    )
    assert "toy" in list_encoding_names() and list_encoding_names().count("cl100k_base") == 1
    toy = get_encoding("toy")
    assert toy.encode("abc") == [256, 99] and get_encoding("toy") is toy
    with pytest.raises(ArgumentError, match="unknown encoding"):
        get_encoding("no such name")


def test_a_broken_plugin_is_named(plugin):
    plugin.write_text("")
    with pytest.raises(PluginError, match="a_plugin"):
        list_encoding_names()


def tokenizer(pattern):
    return BpeTrainer(400, pattern=pattern, special_tokens=["<end>"]).train(CORPUS).tokenizer


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_stream_gives_the_ids_of_the_whole(pattern):
    enc = tokenizer(pattern)
    rng = random.Random(pattern)
    for _ in range(400):
        text = "".join(rng.choices([*ALPHABET, "<end>", "  ", "\n\n", "they'll"], k=60))
        stream = enc.stream_encoder(allowed_special="all")
        ids = []
        at = 0
        while at < len(text):
            n = rng.choice((1, 2, 3, 10))
            ids += stream.push(text[at : at + n])
            at += n
        assert [*ids, *stream.finish()] == enc.encode(text, allowed_special="all"), text
        assert stream.finish() == []


@settings(max_examples=100)
@given(st.lists(st.text(max_size=6), max_size=8))
def test_a_stream_of_any_pieces(pieces):
    enc = tokenizer_gpt2()
    stream = StreamEncoder(enc, disallowed_special=())
    ids = [id for piece in pieces for id in stream.push(piece)] + stream.finish()
    assert ids == enc.encode("".join(pieces), disallowed_special=())


def tokenizer_gpt2(held=[]):  # noqa: B006
    if not held:
        held.append(tokenizer("gpt2"))
    return held[0]


def test_a_stream_gives_ids_before_its_end_and_holds_little():
    enc = tokenizer_gpt2()
    stream = enc.stream_encoder()
    pushed = sum(len(stream.push(CORPUS[0])) for _ in range(50))
    assert pushed > 0.9 * len(enc.encode(CORPUS[0] * 50))
    assert len(stream._text) < 200


def test_a_stream_without_borders_takes_linear_time():
    stream = tokenizer_gpt2().stream_encoder()
    ids = []
    for _ in range(300_000):
        ids += stream.push("a")
    assert ids + stream.finish() == tokenizer_gpt2().encode("a" * 300_000)


def test_a_disallowed_token_in_two_pieces_is_seen():
    stream = tokenizer_gpt2().stream_encoder()
    with pytest.raises(DisallowedSpecialTokenError):
        [stream.push(part) for part in ("so <e", "nd> it goes on and on ", "and on ")]
        stream.finish()


def test_a_tokenizer_that_is_not_cut_holds_all_of_the_text():
    stream = StreamEncoder(ByteTokenizer())
    assert stream.push("ab") == [] and stream.push("c") == []
    assert stream.finish() == [97, 98, 99]
    assert rustllm.tokenizers.stream_encoder.StreamEncoder is StreamEncoder
