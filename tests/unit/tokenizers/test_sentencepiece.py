"""SentencePiece models and Unigram: the ids of sentencepiece and of tokenizers."""

import base64
import json
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED, needs_shared

from rustllm.errors import (
    DisallowedSpecialTokenError,
    FileFormatError,
    FileMissingError,
    TokenizerError,
    UnknownTokenError,
    UnsupportedError,
)
from rustllm.tokenizers.load import load_tokenizer
from rustllm.tokenizers.precompiled import PrecompiledMap
from rustllm.tokenizers.sentencepiece import SentencePieceTokenizer, load_sentencepiece
from rustllm.tokenizers.sentencepiece_model import BYTE, read_sentencepiece_model
from rustllm.tokenizers.tokenizer_json import from_bytes
from rustllm.tokenizers.unigram import UnigramModel

KINDS = [("unigram", "nmt_nfkc"), ("unigram", "identity"), ("bpe", "nmt_nfkc"), ("bpe", "identity")]
TEXTS = st.lists(
    st.sampled_from(
        list("theandforwhich  .,0123456789▁é\u0301\u0300Åﬁ①Ｆｕ中文日本カ゛\t\n\r\u200d")
        + ["<sep>", "foo bar", "the ", "<s>"]
    ),
    max_size=25,
).map("".join)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("sentencepiece")
    rng = random.Random(5)
    stems = ["the", "and", "for", "which", "dis", "re", "ing", "ed", "日本", "中文", "é", "12"]
    lines = [
        " ".join("".join(rng.choices(stems, k=rng.randint(1, 3))) for _ in range(12)) + "."
        for _ in range(600)
    ]
    (folder / "text").write_text("\n".join(lines), encoding="utf-8")
    for kind, rule in KINDS:
        plain = rule == "identity"
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "text"),
            model_prefix=str(folder / f"{kind}-{rule}"),
            vocab_size=420 if plain else 150,
            model_type=kind,
            normalization_rule_name=rule,
            byte_fallback=plain,
            user_defined_symbols=["<sep>", "foo bar"] if plain else [],
            remove_extra_whitespaces=not plain,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
    return folder


@pytest.fixture(scope="module")
def pair(models):
    import sentencepiece

    cache = {}

    def get(kind, rule):
        if (kind, rule) not in cache:
            path = models / f"{kind}-{rule}.model"
            peer = sentencepiece.SentencePieceProcessor(model_file=str(path))
            cache[kind, rule] = load_sentencepiece(path), peer
        return cache[kind, rule]

    return get


@pytest.mark.parametrize(("kind", "rule"), KINDS)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_ids_and_text_are_those_of_sentencepiece(pair, kind, rule, text):
    mine, peer = pair(kind, rule)
    ids = peer.encode(text)
    assert mine.encode_ordinary(text) == ids
    assert mine.decode(ids) == peer.decode(ids)


@pytest.mark.parametrize(("kind", "rule"), KINDS)
def test_long_texts_keep_to_the_sums_of_sentencepiece(pair, kind, rule):
    mine, peer = pair(kind, rule)
    rng = random.Random(1)
    text = "".join(rng.choices("theandforwhichdiring ed ", k=120_000))
    assert mine.encode_ordinary(text) == peer.encode(text)


@needs_shared
def test_golden_ids_are_reproduced():
    tokenizer = load_tokenizer(SHARED / "conformance/models/sentencepiece/llama2.model")
    golden = SHARED / "conformance/golden/sentencepiece-llama2.json"
    for item in json.loads(golden.read_text(encoding="utf-8")):
        assert tokenizer.encode(item["text"], disallowed_special=()) == item["ids"]


def test_control_pieces_are_special_tokens(pair):
    tokenizer, _ = pair("bpe", "identity")
    assert tokenizer.special_tokens == {"<s>": 1, "</s>": 2}
    with pytest.raises(DisallowedSpecialTokenError) as caught:
        tokenizer.encode("the<s>")
    assert (caught.value.token, caught.value.position) == ("<s>", 3)
    ids = tokenizer.encode("<s>the</s>and", allowed_special="all")
    assert ids[0] == 1 and 2 in ids
    assert 1 not in tokenizer.encode("<s>the", disallowed_special=())
    assert tokenizer.encode("", allowed_special="all") == []


def test_pieces_answer_both_ways(pair):
    for kind, rule in KINDS:
        tokenizer, peer = pair(kind, rule)
        assert tokenizer.n_vocab == peer.get_piece_size()
        for id in range(3, tokenizer.n_vocab):
            data = tokenizer.id_to_bytes(id)
            assert tokenizer.id_to_bytes(tokenizer.bytes_to_id(data)) == data
        for bad in (-1, tokenizer.n_vocab):
            with pytest.raises(UnknownTokenError):
                tokenizer.id_to_bytes(bad)
        with pytest.raises(UnknownTokenError):
            tokenizer.bytes_to_id(b"no such piece")


def test_a_model_is_saved_and_pickled(pair, models, tmp_path):
    tokenizer, _ = pair("unigram", "nmt_nfkc")
    tokenizer.save(tmp_path / "m.model")
    assert (tmp_path / "m.model").read_bytes() == (models / "unigram-nmt_nfkc.model").read_bytes()
    for again in (load_tokenizer(tmp_path / "m.model"), pickle.loads(pickle.dumps(tokenizer))):
        assert again.encode("the and") == tokenizer.encode("the and")


def test_damaged_models_are_refused_and_never_crash(models, tmp_path):
    good = (models / "unigram-identity.model").read_bytes()
    rng = random.Random(2)
    for data in (
        b"",
        b"\n",
        b"\n\xff\xff\xff\xff\x0f",
        b"\x00",
        b"\x0b\x00",
        good[: len(good) // 2],
    ):
        with pytest.raises(FileFormatError):
            SentencePieceTokenizer(data)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(3):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            SentencePieceTokenizer(bytes(bad)).encode("the and 日本", disallowed_special=())
        except (FileFormatError, UnsupportedError, TokenizerError):
            pass
    with pytest.raises(FileMissingError):
        load_sentencepiece(tmp_path / "absent.model")


def test_other_kinds_of_models_are_refused_by_name():
    sentencepiece = pytest.importorskip("sentencepiece")
    import io

    for kind in ("word", "char"):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c", "b c d"] * 20), model_writer=model, model_type=kind,
            vocab_size=8, minloglevel=2, hard_vocab_limit=False, num_threads=1,
        )  # fmt: skip
        with pytest.raises(UnsupportedError):
            SentencePieceTokenizer(model.getvalue())


def test_both_ways_to_replace_the_longest_key_agree(models):
    model = read_sentencepiece_model((models / "unigram-nmt_nfkc.model").read_bytes())
    charsmap = PrecompiledMap(model.charsmap)
    rng = random.Random(8)
    pool = [chr(code) for code in range(1, 0x3100)] + list("aeiouAO \u0301\u0323ﬁカ゛ﾊﾟ각") * 300
    text = "".join(rng.choices(pool, k=20_000))
    assert charsmap.replace_longest(text) == charsmap._replace_longest(text)
    for _ in range(300):
        text = "".join(rng.choices(pool, k=rng.randint(0, 9)))
        assert charsmap.replace_longest(text) == charsmap._replace_longest(text)


# -- Unigram in tokenizer.json ------------------------------------------------------------------

CUTS = [
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False},
    {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}]},
]  # fmt: skip


def unigram_file(models, rule, cut):
    model = read_sentencepiece_model((models / f"unigram-{rule}.model").read_bytes())
    normalizers = [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]
    if model.charsmap:
        charsmap = base64.b64encode(model.charsmap).decode()
        normalizers.insert(0, {"type": "Precompiled", "precompiled_charsmap": charsmap})
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": id, "content": text, "special": True, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False}
            for id, (text, _, kind) in enumerate(model.pieces) if kind in (2, 3)
        ],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": cut,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": model.byte_fallback,
                  "vocab": [[text, score] for text, score, _ in model.pieces]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def unigrams(models):
    tokenizers = pytest.importorskip("tokenizers")
    cache = {}

    def get(rule, i):
        if (rule, i) not in cache:
            source = json.dumps(unigram_file(models, rule, CUTS[i]))
            cache[rule, i] = from_bytes(source.encode()), tokenizers.Tokenizer.from_str(source)
        return cache[rule, i]

    return get


@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity"])
@pytest.mark.parametrize("i", range(len(CUTS)))
@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_unigram_gives_the_ids_and_offsets_of_tokenizers(unigrams, rule, i, text):
    mine, peer = unigrams(rule, i)
    theirs = peer.encode(text)
    assert mine.encode(text, allowed_special="all") == theirs.ids
    row = mine.pipeline.row(text)
    assert (row.ids, row.tokens, row.offsets) == (theirs.ids, theirs.tokens, theirs.offsets)
    assert mine.pipeline.ids(text) == theirs.ids
    assert mine.decode(theirs.ids) == peer.decode(theirs.ids, skip_special_tokens=False)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_compiled_viterbi_agrees_with_its_definition(data):
    pieces = data.draw(st.lists(st.text("abé", min_size=1, max_size=4), unique=True, max_size=8))
    scores = [data.draw(st.sampled_from([-1.0, -2.0, -3.0, -2.5])) for _ in pieces]
    model = UnigramModel([("<unk>", 0.0), *zip(pieces, scores, strict=True)], 0)
    text = data.draw(st.text("abéz", min_size=1, max_size=12))
    assert model.ids(text) == [token[0] for token in model.tokenize(text)]


def test_text_that_cannot_be_written_is_an_error():
    model = UnigramModel([("a", -1.0)])
    assert model.ids("aa") == [0, 0]
    with pytest.raises(TokenizerError):
        model.ids("ab")
    with pytest.raises(TokenizerError):
        model.tokenize("ab")


def test_damaged_character_maps_are_refused_or_harmless(models):
    content = unigram_file(models, "nmt_nfkc", CUTS[0])
    part = content["normalizer"]["normalizers"][0]
    blob = bytearray(base64.b64decode(part["precompiled_charsmap"]))
    for bad in ("!", base64.b64encode(blob[:3]).decode(), base64.b64encode(b"\xff" * 40).decode()):
        part["precompiled_charsmap"] = bad
        with pytest.raises(FileFormatError):
            from_bytes(json.dumps(content).encode())
    rng = random.Random(4)
    for _ in range(20):
        harmed = bytearray(blob)
        for _ in range(2000):
            harmed[rng.randrange(4, len(harmed))] = rng.randrange(256)
        part["precompiled_charsmap"] = base64.b64encode(harmed).decode()
        try:
            from_bytes(json.dumps(content).encode()).encode(
                "the ﬁ é ① Ｆ カ゛", allowed_special="all"
            )
        except FileFormatError:
            pass


@pytest.mark.parametrize(("kind", "rule"), KINDS)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_offsets_are_those_of_sentencepiece(pair, kind, rule, text):
    pytest.importorskip("google.protobuf")
    mine, peer = pair(kind, rule)
    text = text.replace("foo bar", "foo")  # theirs is one span, whatever its pieces are
    ids, offsets = mine.encode_with_offsets(text)
    pieces = peer.encode(text, return_type="proto").pieces
    assert ids.tolist() == [piece.id for piece in pieces]
    data = text.encode()
    for (start, end), piece, id in zip(offsets.tolist(), pieces, ids.tolist(), strict=True):
        theirs = len(data[: piece.begin].decode()), len(data[: piece.end].decode())
        # A part of a character is nothing there, or all of it in its last part.
        if mine._model.pieces[id][2] == BYTE:
            assert end == start + 1 and theirs[0] == start and theirs[1] in (start, end)
        elif theirs[1] > theirs[0] or not text[start:end]:
            assert (start, end) == theirs
        else:
            assert theirs[0] == start < end


def test_offsets_of_spaces_and_of_bytes(pair):
    mine, _ = pair("unigram", "nmt_nfkc")
    text = "  the   ﬁ  and  "
    _, offsets = mine.encode_with_offsets(text)
    assert offsets[0].tolist()[0] == 2 and offsets[-1].tolist()[1] == 14
    assert np.all(offsets[1:, 0] >= offsets[:-1, 0])
    mine, _ = pair("bpe", "identity")
    ids, offsets = mine.encode_with_offsets("the 🙂")
    assert offsets.tolist()[-4:] == [[4, 5]] * 4
