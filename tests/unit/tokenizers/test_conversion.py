"""Every format that is read is written too: other formats, the same ids, or a reason."""

import base64
import json
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED, needs_shared

import rustllm
from rustllm import BpeTrainer, UnigramTrainer, load_tokenizer
from rustllm._core.split import EXPRESSIONS
from rustllm.errors import ArgumentError, FileMissingError, UnsupportedError
from rustllm.tokenizers import Encoding
from rustllm.tokenizers.conversion import FORMATS, save_tokenizer

TEXT = "the cat sat on the mat, naïve café 😀 日本語 1234567\n\n  indented 'll aaaaaaaa " * 3
MODELS = SHARED / "conformance/models" if SHARED else None
CORPORA = ["english", "code", "multilingual", "cjk"]


def path_for(folder, format):
    names = {"tekken": "tekken.json", "vocab-merges": "", "sentencepiece": "a.model"}
    return folder / names.get(format, f"a.{format.removeprefix('tokenizer.')}")


def through(tokenizer, folder, format, **options):
    """Write and read again."""
    path = path_for(folder, format)
    save_tokenizer(tokenizer, path, format)
    return load_tokenizer(path, **options)


def corpus(name):
    with lzma.open(SHARED / f"corpora/{name}.txt.xz", "rt", encoding="utf-8", newline="") as file:
        return file.read(200_000)


def toy():
    """Ranks as tiktoken has them: every token spells itself."""
    trained = BpeTrainer(400, pattern="cl100k").train([TEXT] * 5)
    tokens = trained.token_bytes()
    ranks = {bytes([b]): b for b in range(256)}
    for _, _, made in trained.merges():
        ranks.setdefault(tokens[made], len(ranks))
    return Encoding(
        "toy", pat_str="tekken", mergeable_ranks=ranks, special_tokens={"<end>": len(ranks)}
    )


@pytest.mark.parametrize("pattern", ["gpt2", "qwen2"])
@pytest.mark.parametrize("format", ["tokenizer.json", "gguf", "vocab-merges"])
def test_merges_keep_their_ids(tmp_path, pattern, format):
    trained = BpeTrainer(400, pattern=pattern, special_tokens=["<end>"]).train([TEXT] * 3)
    if format == "vocab-merges" and pattern != "gpt2":
        with pytest.raises(UnsupportedError, match="GPT-2"):
            through(trained, tmp_path, format)
        return
    other = through(trained, tmp_path, format)
    for text in (TEXT, "<end>", "x<end>y"):
        assert other.encode(text, allowed_special="all") == trained.encode(
            text, allowed_special="all"
        )
        assert other.encode_ordinary(text) == trained.encode_ordinary(text)
    assert dict(other.special_tokens) == {"<end>": 0}
    # and on from there
    assert through(other, tmp_path, "tokenizer.json").encode(TEXT) == trained.encode(TEXT)


@settings(max_examples=50)
@given(text=st.text(st.sampled_from("ab cdé\n1'l日😀"), max_size=40))
def test_ranks_and_their_merges_agree(tmp_path_factory, text):
    ranks = toy()
    other = through(ranks, tmp_path_factory.mktemp("x"), "tokenizer.json")
    assert other.encode(text) == ranks.encode(text)


def test_ranks_through_tokenizer_json_and_back(tmp_path):
    ranks = toy()
    other = through(ranks, tmp_path, "tokenizer.json")
    for n in range(1, 70):
        for unit in ("a", "ab", "aab", " a", "the"):
            assert other.encode(unit * n) == ranks.encode(unit * n)
    save_tokenizer(other, tmp_path / "b.tiktoken")
    save_tokenizer(ranks, tmp_path / "a.tiktoken")
    assert (tmp_path / "a.tiktoken").read_bytes() == (tmp_path / "b.tiktoken").read_bytes()


def test_tekken_and_gguf_hold_ranks_behind_special_tokens(tmp_path):
    ranks = toy()
    with pytest.raises(UnsupportedError, match="special tokens come first"):
        through(ranks, tmp_path, "tekken")
    byte_tokens = [bytes([b]) for b in range(256)]
    content = {
        "config": {
            "pattern": EXPRESSIONS["tekken"][0],
            "default_vocab_size": 260,
            "default_num_special_tokens": 2,
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode()}
            for rank, token in enumerate([*byte_tokens, b"ab", b"abab"])
        ],
        "special_tokens": [{"rank": 0, "token_str": "<unk>"}, {"rank": 1, "token_str": "<s>"}],
    }
    (tmp_path / "tekken.json").write_text(json.dumps(content))
    tekken = load_tokenizer(tmp_path / "tekken.json")
    texts = ["ababab", "xabab", "<s>ab", "ab abab"]
    for format in ("tekken", "tokenizer.json", "gguf"):
        other = through(tekken, tmp_path, format)
        for text in texts:
            assert other.encode(text, allowed_special="all") == tekken.encode(
                text, allowed_special="all"
            )
    save_tokenizer(tekken, tmp_path / "c.tiktoken")  # ranks with holes below them are still ranks


def test_what_a_format_cannot_hold_is_refused_with_a_reason(tmp_path):
    trained = BpeTrainer(300).train([TEXT])
    for format, reason in (
        ("tiktoken", "listed pairs only|kept whole"),
        ("tekken", "listed pairs only|kept whole"),
        ("sentencepiece", "no SentencePiece"),
    ):
        with pytest.raises(UnsupportedError, match=reason):
            save_tokenizer(trained, path_for(tmp_path, format), format)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ArgumentError, match="format"):
        save_tokenizer(trained, tmp_path / "x.bin")
    with pytest.raises(ArgumentError, match="unknown format"):
        save_tokenizer(trained, tmp_path / "x.bin", "pickle")
    with pytest.raises(FileMissingError):
        save_tokenizer(trained, tmp_path / "no/tokenizer.json")


@needs_shared
@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base", "p50k_base"])
def test_public_ranks_as_tokenizer_json(tmp_path, name):
    ranks = rustllm.get_encoding(name, vocab=MODELS / f"tiktoken/{name}.tiktoken")
    other = through(ranks, tmp_path, "tokenizer.json")
    assert dict(other.special_tokens) == dict(ranks.special_tokens)
    for text in map(corpus, CORPORA):
        assert other.encode(text, allowed_special="all") == ranks.encode(
            text, allowed_special="all"
        )
    save_tokenizer(ranks, tmp_path / "a.tiktoken")
    published = (MODELS / f"tiktoken/{name}.tiktoken").read_bytes()
    assert (tmp_path / "a.tiktoken").read_bytes().split() == published.split()


@needs_shared
@pytest.mark.parametrize("format", ["gguf", "vocab-merges", "tokenizer.json"])
def test_gpt2_in_other_formats(tmp_path, format):
    gpt2 = load_tokenizer(MODELS / "tokenizers/gpt2.json")
    other = through(gpt2, tmp_path, format)
    for text in map(corpus, CORPORA):
        assert other.encode(text, disallowed_special=()) == gpt2.encode(text, disallowed_special=())


@needs_shared
def test_sentencepiece_as_gguf_and_back(tmp_path):
    llama = load_tokenizer(MODELS / "sentencepiece/llama2.model")
    gguf = through(llama, tmp_path, "gguf")
    model = through(gguf, tmp_path, "sentencepiece")
    for text in [*map(corpus, CORPORA), "", " ", "a  b", "\n<s>"]:
        expected = llama.encode_ordinary(text)
        assert gguf.encode_ordinary(text) == expected
        assert model.encode_ordinary(text) == expected
    assert dict(model.special_tokens).keys() >= {"<s>", "</s>"}
    with pytest.raises(UnsupportedError, match="byte-level"):
        through(llama, tmp_path, "tiktoken")


@needs_shared
def test_the_written_model_is_one_to_sentencepiece(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    llama = load_tokenizer(MODELS / "sentencepiece/llama2.model")
    gguf = through(llama, tmp_path, "gguf")
    save_tokenizer(gguf, tmp_path / "b.model")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "b.model"))
    text = corpus("english")[:20_000]
    assert theirs.encode(text) == llama.encode_ordinary(text)


@needs_shared
def test_the_written_tokenizer_json_is_one_to_tokenizers(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    ranks = rustllm.get_encoding("cl100k_base", vocab=MODELS / "tiktoken/cl100k_base.tiktoken")
    save_tokenizer(ranks, tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for name in CORPORA:
        text = corpus(name)[:50_000]
        assert theirs.encode(text).ids == ranks.encode(text, allowed_special="all")


def test_every_format_has_a_writer():
    assert set(FORMATS) == {
        "tokenizer.json",
        "tiktoken",
        "tekken",
        "vocab-merges",
        "gguf",
        "sentencepiece",
    }


def test_what_merges_alone_give_need_not_be_kept_whole(tmp_path):
    ranks = {bytes([b]): b for b in range(256)}
    reached = Encoding(
        "r", pat_str="o200k", mergeable_ranks={**ranks, b"ab": 256, b"abc": 257}, special_tokens={}
    )
    other = through(reached, tmp_path, "gguf")
    assert other.encode("abc ab c") == reached.encode("abc ab c")
    # no merge makes "abc", so only a rule that keeps it whole gives it
    kept = Encoding("k", pat_str="o200k", mergeable_ranks={**ranks, b"abc": 256}, special_tokens={})
    assert kept.encode("abc") == [256]
    with pytest.raises(UnsupportedError, match="kept whole"):
        through(kept, tmp_path, "gguf")
    # but what is no pretoken is of no account
    cut = Encoding("c", pat_str="o200k", mergeable_ranks={**ranks, b"a\nb": 256}, special_tokens={})
    assert through(cut, tmp_path, "gguf").encode("a\nb") == cut.encode("a\nb")


@pytest.mark.parametrize("name", ["a.json", "a.gguf", "a.tiktoken", "a", "a.bin"])
def test_an_encoding_is_saved_as_its_name_says(tmp_path, name):
    ranks = {bytes([b]): b for b in range(256)} | {b"ab": 256}
    enc = Encoding("e", pat_str="o200k", mergeable_ranks=ranks, special_tokens={"<e>": 257})
    enc.save(tmp_path / name)
    if name in ("a.json", "a.gguf"):
        again = load_tokenizer(tmp_path / name)
        assert again.encode("ab<e>", allowed_special="all") == [256, 257]
    else:
        assert (tmp_path / name).read_bytes().splitlines()[-1] == b"YWI= 256"
    enc.save(tmp_path / "b", format="tokenizer.json")
    assert load_tokenizer(tmp_path / "b").encode("ab") == [256]
    with pytest.raises(ArgumentError):
        enc.save(tmp_path / "b", format="yaml")


@needs_shared
def test_what_two_formats_understand_differently_is_refused_with_the_reason(tmp_path):
    llama = load_tokenizer(MODELS / "sentencepiece/llama2.model")
    with pytest.raises(UnsupportedError, match="leftmost of two ways"):
        save_tokenizer(llama, tmp_path / "tokenizer.json")
    gguf = through(llama, tmp_path, "gguf")
    with pytest.raises(UnsupportedError, match="leftmost of two ways"):
        save_tokenizer(gguf, tmp_path / "tokenizer.json")
    unigram = UnigramTrainer(40).train(["low lower lowest, slow slower slowest"] * 3)
    with pytest.raises(UnsupportedError, match="double precision"):
        save_tokenizer(unigram, tmp_path / "a.model")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.gguf"]
