"""tokenizer.json: the ids, offsets and words of Hugging Face's tokenizers, or a refusal by name."""

import json
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED, needs_shared
from tokenizer_components import (
    CHARS,
    COMPONENT_TEXTS,
    DECODERS,
    NORMALIZERS,
    PIECES,
    PRE_TOKENIZERS,
    assert_same_row,
    component_file,
    peer_of,
)

from rustllm.errors import (
    ArgumentError,
    DisallowedSpecialTokenError,
    FileFormatError,
    FileMissingError,
    UnknownTokenError,
    UnsupportedError,
)
from rustllm.tokenizers.pipeline import Pipeline
from rustllm.tokenizers.pipeline_tokenizer import JsonBpeTokenizer, PipelineTokenizer
from rustllm.tokenizers.tokenizer_json import from_bytes, load

NAMES = ("bert_base_cased", "gpt2", "gpt_neox", "llama2", "mistral03")
AWKWARD = (
    "",
    " ",
    "  two  spaces ",
    "it's 12345 o'clock\r\n\n\tsure?!",
    "naïve Ｆｕｌｌ ﬁ Å e\u0301\u0323 \u1e9b\u0323 İstanbul ΣΑΣ ς",
    "日本語 とても 中文，标点。\u3000x",
    "हिन्दी ไทย עברית العربية",
    "👩‍👩‍👧 🇫🇷 \U0001f9ff\u200d\u00ad",
    "a\0b\ufffdc\u200bd\x7f\x85e\u2028f\u2581g",
    "▁▁under ▁ scores▁",
    "x" * 300 + "-" * 70 + "9" * 40,
    "<s>not special</s> <unk><|endoftext|>",
)


def model_path(name):
    return SHARED / "conformance/models/tokenizers" / f"{name}.json"


@pytest.fixture(scope="module")
def loaded():
    cache = {}

    def get(name):
        if name not in cache:
            cache[name] = load(model_path(name))
        return cache[name]

    return get


@pytest.fixture(scope="module")
def peers():
    tokenizers = pytest.importorskip("tokenizers")
    cache = {}

    def get(name):
        if name not in cache:
            cache[name] = tokenizers.Tokenizer.from_file(str(model_path(name)))
        return cache[name]

    return get


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_golden_ids_are_reproduced(loaded, name):
    tokenizer = loaded(name)
    golden = SHARED / "conformance/golden" / f"tokenizers-{name}.json"
    for item in json.loads(golden.read_text(encoding="utf-8")):
        assert tokenizer.encode(item["text"], allowed_special="all") == item["ids"]
        array = tokenizer.encode_to_numpy(item["text"], allowed_special="all")
        assert array.dtype == np.uint32 and array.tolist() == item["ids"]
        assert tokenizer.pipeline.ids(item["text"]) == item["ids"]


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_corpora_encode_as_tokenizers_does(loaded, peers, name):
    import lzma

    for corpus in ("english", "code", "cjk", "multilingual"):
        with lzma.open(SHARED / "corpora" / f"{corpus}.txt.xz") as file:
            text = file.read(60_000).decode("utf-8", "ignore")
        expected = peers(name).encode(text, add_special_tokens=False).ids
        assert loaded(name).encode(text, allowed_special="all") == expected


@needs_shared
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60))
def test_any_text_encodes_and_decodes_as_tokenizers_does(loaded, peers, name, text):
    peer, mine = peers(name), loaded(name)
    expected = peer.encode(text, add_special_tokens=False).ids
    assert mine.encode(text, allowed_special="all") == expected
    assert mine.decode(expected) == peer.decode(expected, skip_special_tokens=False)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", AWKWARD)
def test_offsets_words_and_masks_are_those_of_tokenizers(loaded, peers, name, text):
    assert_same_row(loaded(name).pipeline, peers(name), text)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_half_of_a_text_s_ids_decode_as_tokenizers_does(loaded, peers, name):
    peer = peers(name)
    for text in AWKWARD:
        for start in (0, 1):
            ids = peer.encode(text).ids[start::2]
            assert loaded(name).decode(ids) == peer.decode(ids, skip_special_tokens=False)
            assert loaded(name).pipeline.decode(ids, True) == peer.decode(ids)


@needs_shared
def test_public_models_take_the_compiled_path(loaded):
    assert isinstance(loaded("gpt2"), JsonBpeTokenizer)
    assert isinstance(loaded("llama2"), JsonBpeTokenizer)
    for name in ("gpt_neox", "mistral03"):
        assert isinstance(loaded(name), PipelineTokenizer) and loaded(name)._fast is not None
    assert loaded("bert_base_cased")._words is not None


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_survives_pickling_and_saving(loaded, name, tmp_path):
    tokenizer = loaded(name)
    text = "So it goes, naïve 日本."
    again = pickle.loads(pickle.dumps(tokenizer))
    assert type(again) is type(tokenizer)
    assert again.encode(text) == tokenizer.encode(text)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert load(tmp_path / "tokenizer.json").encode(text) == tokenizer.encode(text)
    assert (tmp_path / "tokenizer.json").read_bytes() == model_path(name).read_bytes()


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_the_vocabulary_answers_both_ways(loaded, name):
    tokenizer = loaded(name)
    assert 0 < tokenizer.n_vocab < 60_000
    for id in (1000, 5000, 20_000):
        data = tokenizer.id_to_bytes(id)
        assert tokenizer.id_to_bytes(tokenizer.bytes_to_id(data)) == data
    with pytest.raises(UnknownTokenError):
        tokenizer.id_to_bytes(10**6)
    with pytest.raises(UnknownTokenError):
        tokenizer.decode([10**6])
    with pytest.raises(UnknownTokenError):
        tokenizer.bytes_to_id(b"no such token at all")


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_are_refused_allowed_or_text(loaded, name):
    tokenizer = loaded(name)
    token, id = next(iter(tokenizer.special_tokens.items()))
    text = f"before{token} after"
    with pytest.raises(DisallowedSpecialTokenError) as caught:
        tokenizer.encode(text)
    assert (caught.value.token, caught.value.position) == (token, 6)
    assert id in tokenizer.encode(text, allowed_special={token})
    assert id in tokenizer.encode(text, allowed_special="all")
    as_text = tokenizer.encode(text, disallowed_special=())
    assert id not in as_text and as_text == tokenizer.encode_ordinary(text)
    assert tokenizer.count(text) == len(as_text)
    assert tokenizer.encode_batch([text, ""], disallowed_special=()) == [as_text, []]


# -- components, one against one ----------------------------------------------------------------


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=lambda value: json.dumps(value)[9:40])
def test_each_normalizer_changes_text_as_tokenizers_does(normalizer):
    content = component_file(normalizer=normalizer)
    pipeline, peer = Pipeline(content), peer_of(content)
    for text in COMPONENT_TEXTS:
        assert pipeline.row(text).tokens == peer.encode(text).tokens
        assert pipeline.row(text).offsets == peer.encode(text).offsets, text
        assert pipeline.ids(text) == peer.encode(text).ids


@pytest.mark.parametrize("cut", PRE_TOKENIZERS, ids=lambda value: json.dumps(value)[9:70])
def test_each_pre_tokenizer_cuts_text_as_tokenizers_does(cut):
    if "Regex" in json.dumps(cut):
        pytest.importorskip("regex")
    content = component_file(pre_tokenizer=cut)
    pipeline, peer = Pipeline(content), peer_of(content)
    for text in COMPONENT_TEXTS:
        assert_same_row(pipeline, peer, text)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.text(CHARS, max_size=25))
def test_normalizers_and_pre_tokenizers_combine_as_in_tokenizers(data, text):
    plain = [value for value in NORMALIZERS if "Regex" not in json.dumps(value)]
    cuts = [value for value in PRE_TOKENIZERS if "Regex" not in json.dumps(value)]
    content = component_file(data.draw(st.sampled_from(plain)), data.draw(st.sampled_from(cuts)))
    pipeline, peer = Pipeline(content), peer_of(content)
    assert pipeline.row(text).tokens == peer.encode(text).tokens
    assert pipeline.row(text).words == peer.encode(text).word_ids
    assert pipeline.ids(text) == peer.encode(text).ids


@pytest.mark.parametrize("decoder", [None, *DECODERS], ids=lambda value: json.dumps(value)[9:60])
@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.integers(0, len(PIECES) - 1), max_size=8))
def test_each_decoder_joins_tokens_as_tokenizers_does(decoder, ids):
    vocab = {piece: i for i, piece in enumerate(PIECES)}
    content = component_file(
        decoder=decoder, model={"type": "WordLevel", "vocab": vocab, "unk_token": "a"}
    )
    assert Pipeline(content).decode(ids) == peer_of(content).decode(ids)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_option_of_bpe_gives_the_ids_of_tokenizers(data):
    letters = "abcd"
    prefix = data.draw(st.sampled_from(["", "##"]))
    suffix = data.draw(st.sampled_from(["", "</w>"]))
    vocab = {"<unk>": 0}
    for char in letters[:3]:
        for text in {char, prefix + char, char + suffix, prefix + char + suffix}:
            vocab.setdefault(text, len(vocab))
    if data.draw(st.booleans()):
        for byte in b"d\xc3\xa9":
            vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    merges = []
    for _ in range(data.draw(st.integers(0, 6))):
        left = data.draw(st.sampled_from(sorted(vocab)))
        right = data.draw(st.sampled_from(sorted(vocab)))
        if "<" in (left + right).replace("</w>", "") or left.endswith("</w>"):
            continue
        if prefix and not right.startswith(prefix):
            continue
        merges.append([left, right])
        vocab.setdefault(left + right[len(prefix) :], len(vocab))
    model = {
        "type": "BPE", "dropout": None, "unk_token": data.draw(st.sampled_from([None, "<unk>"])),
        "continuing_subword_prefix": prefix or None, "end_of_word_suffix": suffix or None,
        "fuse_unk": data.draw(st.booleans()), "byte_fallback": data.draw(st.booleans()),
        "ignore_merges": data.draw(st.booleans()), "vocab": vocab, "merges": merges,
    }  # fmt: skip
    content = component_file(model=model, pre_tokenizer={"type": "WhitespaceSplit"})
    text = data.draw(st.text(letters + "é ", max_size=20))
    pipeline, peer = Pipeline(content), peer_of(content)
    assert pipeline.row(text).ids == peer.encode(text).ids
    if model["unk_token"] is not None:  # else theirs do not count the characters that vanish
        assert pipeline.row(text).offsets == peer.encode(text).offsets


@settings(max_examples=100, deadline=None)
@given(st.data(), st.text("lower ab.", max_size=30))
def test_wordpiece_gives_the_ids_of_tokenizers_on_both_paths(data, text):
    pieces = data.draw(st.lists(st.text("lowerab", min_size=1, max_size=4), max_size=12))
    vocab = {"[UNK]": 0}
    for piece in pieces:
        vocab.setdefault(piece, len(vocab))
        if data.draw(st.booleans()):
            vocab.setdefault("##" + piece, len(vocab))
    model = {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]",
             "continuing_subword_prefix": "##",
             "max_input_chars_per_word": data.draw(st.sampled_from([3, 100]))}  # fmt: skip
    content = component_file(model=model, pre_tokenizer={"type": "BertPreTokenizer"})
    expected = peer_of(content).encode(text).ids
    tokenizer = from_bytes(json.dumps(content).encode())
    assert tokenizer._words is not None
    assert tokenizer.encode(text) == expected
    assert tokenizer.pipeline.ids(text) == expected


# -- added tokens -------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.data(), st.text("ab .<>T", max_size=24))
def test_flags_of_added_tokens_work_as_in_tokenizers(data, text):
    content = component_file(
        normalizer=data.draw(st.sampled_from([None, {"type": "Lowercase"}])),
        pre_tokenizer=data.draw(st.sampled_from([None, PRE_TOKENIZERS[2], PRE_TOKENIZERS[3]])),
    )
    first = max(content["model"]["vocab"].values()) + 1
    tokens = data.draw(
        st.lists(st.sampled_from(["<T>", "ab", "b.", "a b", "T", "<t>"]), unique=True, max_size=4)
    )
    for i, token in enumerate(tokens):
        flags = {
            name: data.draw(st.booleans(), label=name)
            for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
        }
        content["added_tokens"].append({"id": first + i, "content": token, **flags})
    assert_same_row(Pipeline(content), peer_of(content), text)
    mine = from_bytes(json.dumps(content).encode())
    assert mine.encode(text, allowed_special="all") == peer_of(content).encode(text).ids


@needs_shared
def test_ten_thousand_added_tokens_are_found():
    content = json.loads(model_path("gpt2").read_bytes())
    content["added_tokens"] += [
        {"id": 50257 + i, "content": f"<extra_{i}>", "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": i % 2 == 0}
        for i in range(10_000)
    ]  # fmt: skip
    tokenizer = from_bytes(json.dumps(content).encode())
    assert tokenizer.n_vocab == 60257
    ids = tokenizer.encode("a<extra_9999>b<extra_12>", allowed_special="all")
    assert ids == [64, 60256, 65, 50269]
    assert tokenizer.encode_ordinary("<extra_9999>") == [60256]
    assert tokenizer.decode(ids) == "a<extra_9999>b<extra_12>"


# -- refusals -----------------------------------------------------------------------------------


def refused(change):
    content = component_file()
    change(content)
    with pytest.raises((UnsupportedError, FileFormatError)) as caught:
        from_bytes(json.dumps(content).encode())
    return caught.value


@pytest.mark.parametrize("key", ["normalizer", "pre_tokenizer", "post_processor", "decoder"])
def test_an_unknown_component_is_refused_by_name(key):
    error = refused(lambda content: content.update({key: {"type": "Frobnicator"}}))
    assert isinstance(error, UnsupportedError) and "Frobnicator" in str(error)


def test_an_unknown_setting_is_refused_by_name():
    error = refused(
        lambda content: content.update(normalizer={"type": "Lowercase", "locale": "tr"})
    )
    assert isinstance(error, UnsupportedError) and "locale" in str(error)
    error = refused(lambda content: content["model"].update(dropout=0.1))
    assert isinstance(error, UnsupportedError) and "dropout" in str(error)
    error = refused(lambda content: content.update(extra=1))
    assert "extra" in str(error)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("model"),
        lambda c: c.update(model=3),
        lambda c: c["model"].update(vocab=[]),
        lambda c: c["model"].update(vocab={"a": -1}),
        lambda c: c["model"].update(vocab={"a": "b"}),
        lambda c: c["model"].update(merges=[["a"]]),
        lambda c: c["model"].update(merges=["a b c"]),
        lambda c: c["model"].update(merges=[["a", "zz"]]),
        lambda c: c.update(normalizer={"type": "Replace", "pattern": {}, "content": ""}),
        lambda c: c.update(normalizer={"type": "Strip", "strip_left": 1}),
        lambda c: c.update(pre_tokenizer={"type": "Split", "pattern": {"String": " "},
                                          "behavior": "Sometimes", "invert": False}),
        lambda c: c.update(added_tokens=[{"id": 1}]),
        lambda c: c.update(added_tokens=[{"id": -1, "content": "x"}]),
        lambda c: c.update(added_tokens={}),
        lambda c: c.update(post_processor={"type": "TemplateProcessing", "single": ["$A"],
                                           "pair": [], "special_tokens": {}}),
        lambda c: c.update(version="2.0"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused(change):
    refused(change)


def test_bytes_that_are_no_tokenizer_are_refused(tmp_path):
    for data in (b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 5000):
        with pytest.raises(FileFormatError):
            from_bytes(data)
    with pytest.raises(FileMissingError):
        load(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_bytes(b"{}")
    with pytest.raises(FileFormatError) as caught:
        load(tmp_path / "bad.json")
    assert caught.value.path == str(tmp_path / "bad.json")


def test_components_nested_without_end_are_refused():
    content = component_file()
    nested = {"type": "NFC"}
    for _ in range(300):
        nested = {"type": "Sequence", "normalizers": [nested]}
    content["normalizer"] = nested
    from_bytes(json.dumps(content).encode())  # deep, but it ends
    with pytest.raises(FileFormatError):
        from_bytes(b'{"normalizer":' + b'{"type":"Sequence","normalizers":[' * 50_000)


def test_a_string_for_disallowed_special_is_refused():
    tokenizer = from_bytes(json.dumps(component_file(normalizer={"type": "NFC"})).encode())
    with pytest.raises((ArgumentError, TypeError)):
        tokenizer.encode("x", disallowed_special="x")


@needs_shared
@pytest.mark.parametrize("name", ["llama2", "mistral03", "gpt2"])
def test_added_tokens_in_normalized_text_are_those_of_tokenizers(name, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    content = json.loads(model_path(name).read_text(encoding="utf-8"))
    first = 1 + max(
        *content["model"]["vocab"].values(), *(t["id"] for t in content["added_tokens"])
    )
    for i, text in enumerate(["<new>", "two words", "quux"]):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "special": False}
        content["added_tokens"].append(
            {"id": first + i, "content": text, "normalized": True, **flags}
        )
    source = json.dumps(content)
    mine, peer = from_bytes(source.encode()), tokenizers.Tokenizer.from_str(source)
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choices(["<new>", "two words", "quux", " ", "a", "é", "▁", "x y"], k=6))
        assert mine.encode(text) == peer.encode(text, add_special_tokens=False).ids, text


def test_ids_of_added_tokens_are_those_that_tokenizers_gives():
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "special": False}
    for ids in ([50, 60, 70], [0, 1, 2], [70, 60, 50]):
        content = component_file()
        in_vocab = next(iter(content["model"]["vocab"]))
        for id, text in zip(ids, ["<x>", in_vocab, "<y>"]):
            added = {"id": id, "content": text, "normalized": False, **flags}
            content["added_tokens"].append(added)
        mine = from_bytes(json.dumps(content).encode())
        text = f"<y>{in_vocab}<x>"
        assert mine.encode(text) == peer_of(content).encode(text).ids
