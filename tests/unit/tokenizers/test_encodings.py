"""Named encodings: ids, special tokens and bytes against tiktoken and the golden vectors."""

import base64
import gc
import io
import json
import lzma
import pickle
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED, needs_shared

import rustllm
from rustllm.errors import (
    ArgumentError,
    DisallowedSpecialTokenError,
    DownloadError,
    FileFormatError,
    FileMissingError,
    HashMismatchError,
    TokenizerError,
    UnknownTokenError,
)
from rustllm.tokenizers import Encoding
from rustllm.tokenizers.encoding import _WRITTEN

pytestmark = needs_shared
NAMES = ["cl100k_base", "o200k_base", "p50k_base"]
RANKS = SHARED / "conformance/models/tiktoken" if SHARED else None
PATTERNS = {"cl100k_base": "cl100k", "o200k_base": "o200k", "p50k_base": "gpt2"}


@pytest.fixture(scope="module", params=NAMES)
def ours(request):
    return rustllm.get_encoding(request.param, vocab=RANKS / f"{request.param}.tiktoken")


@pytest.fixture(scope="module")
def theirs(ours):
    tiktoken = pytest.importorskip("tiktoken")
    lines = (RANKS / f"{ours.name}.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in lines)}
    expression = next(e for e, name in _WRITTEN.items() if name == PATTERNS[ours.name])
    return tiktoken.Encoding(
        ours.name,
        pat_str=expression,
        mergeable_ranks=ranks,
        special_tokens=dict(ours.special_tokens),
    )


def test_golden_ids(ours):
    golden = json.loads((SHARED / f"conformance/golden/tiktoken-{ours.name}.json").read_text())
    for case in golden:
        ids = ours.encode(case["text"], allowed_special="all")
        assert ids == case["ids"], case["text"]
        assert ours.decode(ids) == case["text"]


@pytest.mark.parametrize("corpus", ["english", "code", "multilingual", "cjk"])
def test_corpora_give_the_ids_of_tiktoken(ours, theirs, corpus):
    with lzma.open(SHARED / f"corpora/{corpus}.txt.xz") as file:
        text = file.read().decode()
    for start in (0, 1_000_000):
        part = text[start : start + 150_000]
        want = theirs.encode_ordinary(part)
        assert ours.encode_ordinary(part) == want
        assert ours.encode_ordinary_to_numpy(part).tolist() == want
        assert ours.count(part) == len(want)
        assert ours.decode_bytes(want) == part.encode()


def test_every_code_point_alone_and_between_letters(ours, theirs):
    chars = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    picked = [*chars[:0x3100], *chars[0x3100::37]]
    for form in ("{0}\n", "a{0}b\n", " {0} {0}1\n"):
        text = "".join(form.format(c) for c in picked)
        assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)


def test_random_text_gives_the_ids_of_tiktoken(ours, theirs):
    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=200) | st.text("aAsS'1 \n\té中.!", max_size=200))
    def run(text):
        assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)

    run()


def test_random_pieces_give_the_ids_of_tiktoken(ours, theirs):
    @settings(max_examples=200, deadline=None)
    @given(st.binary(min_size=1, max_size=300) | st.text("abcde ", min_size=1).map(str.encode))
    def run(piece):
        want = theirs._core_bpe.encode_single_piece(piece)
        assert ours._encoder.encode_piece(piece).tolist() == want
        assert ours._encoder.encode_piece(piece, reference=True).tolist() == want

    run()


@pytest.mark.parametrize("text", ["\ud800", "a\ud800b", "\udc00\ud800", "\ud83d\ude00", "\x00", ""])
def test_surrogates_and_nul_are_read_as_tiktoken_reads_them(ours, theirs, text):
    assert ours.encode(text) == theirs.encode(text)


def test_special_tokens_are_refused_allowed_or_text(ours, theirs):
    text = "a<|endoftext|>b"
    with pytest.raises(DisallowedSpecialTokenError) as caught:
        ours.encode(text)
    assert (caught.value.token, caught.value.position) == ("<|endoftext|>", 1)
    with pytest.raises(ValueError):
        ours.encode_to_numpy(text, allowed_special={"<|fim_prefix|>"})
    for options in (
        {"allowed_special": "all"},
        {"allowed_special": {"<|endoftext|>"}},
        {"disallowed_special": ()},
        {"allowed_special": {"<|endoftext|>"}, "disallowed_special": set()},
    ):
        assert ours.encode(text, **options) == theirs.encode(text, **options)
        assert ours.encode_to_numpy(text, **options).tolist() == theirs.encode(text, **options)
    assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)


def test_decoding(ours, theirs):
    ids = theirs.encode_ordinary("naïve 中文 🏃 text " * 20)
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode(np.array(ids)) == theirs.decode(ids)
    assert ours.decode(np.array(ids, dtype=np.uint16) if max(ids) < 65536 else tuple(ids))
    assert ours.decode_bytes([]) == b""
    assert ours.decode([ours.eot_token]) == "<|endoftext|>"
    broken = ours.encode_ordinary("🏃")[:1]
    assert ours.decode(broken) == theirs.decode(broken)
    with pytest.raises(UnicodeDecodeError):
        ours.decode(broken, errors="strict")


@pytest.mark.parametrize("bad", [-1, 10**6, 2**40, 2**70])
def test_an_unknown_id_is_a_key_error(ours, bad):
    with pytest.raises(UnknownTokenError) as caught:
        ours.decode([5, bad])
    assert isinstance(caught.value, KeyError)
    with pytest.raises(UnknownTokenError):
        ours.id_to_bytes(bad)
    if bad < 2**63:
        with pytest.raises(UnknownTokenError):
            ours.decode(np.array([5, bad]))


def test_single_tokens(ours, theirs):
    for id in [0, 5, 220, 1000, 50000]:
        data = theirs.decode_single_token_bytes(id)
        assert ours.id_to_bytes(id) == data
        assert ours.bytes_to_id(data) == id
        assert ours.encode_single_token(data) == id
    assert ours.encode_single_token("<|endoftext|>") == ours.eot_token == theirs.eot_token
    with pytest.raises(KeyError):
        ours.encode_single_token("no such token at all")
    assert ours.n_vocab == theirs.n_vocab
    assert ours.max_token_value == theirs.max_token_value
    assert ours.special_tokens_set == theirs.special_tokens_set


def test_streaming_never_shows_half_a_character(ours):
    text = "naïve 中文 🏃‍♂️ ok"
    decoder = ours.stream_decoder()
    pieces = [decoder.push(i) for i in ours.encode(text)]
    assert "".join(pieces) + decoder.finish() == text
    assert "\ufffd" not in "".join(pieces)


def test_pickling(ours):
    again = pickle.loads(pickle.dumps(ours))
    assert type(again) is type(ours)
    assert again.name == ours.name
    assert again.encode("Hello <|endoftext|>", allowed_special="all") == ours.encode(
        "Hello <|endoftext|>", allowed_special="all"
    )


def test_tiktokens_own_expression_for_trailing_space_changes_no_id_of_its_vocabulary():
    # tiktoken takes space up to the end of a text as one pretoken, the published expression ends
    # one at the last line end. No token of cl100k_base has space behind its last line end, so
    # nothing merges across that place and ids are the same.
    for line in (RANKS / "cl100k_base.tiktoken").read_bytes().splitlines():
        token = base64.b64decode(line.split()[0]).replace(b"\r", b"\n")
        if b"\n" in token:
            assert not token.rpartition(b"\n")[2][:1].isspace()


def test_an_encoding_with_tiktokens_expression_cuts_as_tiktoken_does():
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([i]): i for i in range(256)} | {b"\n ": 256, b"\n  ": 257, b"  ": 258}
    expression = next(e for e, name in _WRITTEN.items() if name == "cl100k_tiktoken")
    options = {"pat_str": expression, "mergeable_ranks": ranks, "special_tokens": {}}
    mine, its = Encoding("x", **options), tiktoken.Encoding("x", **options)
    for text in ("a\n  ", "a\n  b", " \n ", "\n  \n  ", "a \n"):
        assert mine.encode(text) == its.encode(text)


def test_names_come_from_the_cache_of_tiktoken(monkeypatch, tmp_path):
    from rustllm.tokenizers import registry

    monkeypatch.setattr(registry, "_made", {})
    monkeypatch.setattr(registry, "_from_package", lambda ranks, url: None)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    data = (RANKS / "p50k_base.tiktoken").read_bytes()
    # The name is the SHA-1 of the address, as tiktoken documents.
    (tmp_path / "ec7223a39ce59f226a68acc30dc1af2788490e15").write_bytes(data)
    encoding = rustllm.get_encoding("p50k_base")
    assert encoding.encode("Hello") == [15496]
    assert rustllm.get_encoding("p50k_base") is encoding


@pytest.fixture
def site(monkeypatch, tmp_path):
    """The site of the vocabularies, faked: what it serves, and how often it was asked."""
    from rustllm.tokenizers import registry

    class Site:
        answer = (RANKS / "p50k_base.tiktoken").read_bytes()
        asked = 0

        def open(self, url, timeout):
            assert url.endswith("/p50k_base.tiktoken") and timeout > 0
            self.asked += 1
            if isinstance(self.answer, Exception):
                raise self.answer
            return io.BytesIO(self.answer)

    site = Site()
    monkeypatch.setattr(registry, "_made", {})
    monkeypatch.setattr(registry, "_from_package", lambda ranks, url: None)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("RUSTLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", site.open)
    yield site


def test_a_vocabulary_is_fetched_once_and_kept(site, tmp_path, monkeypatch):
    from rustllm.tokenizers import registry

    assert rustllm.get_encoding("p50k_base").encode("Hello") == [15496]
    monkeypatch.setattr(registry, "_made", {})
    site.answer = URLError("no network")
    assert rustllm.get_encoding("p50k_base").encode("Hello") == [15496]
    assert site.asked == 1
    kept = tmp_path / "cache/encodings/p50k_base.tiktoken"
    kept.write_bytes(b"damaged")
    monkeypatch.setattr(registry, "_made", {})
    with pytest.raises(DownloadError, match="no network") as caught:
        rustllm.get_encoding("p50k_base")
    assert "bpe-openai" in caught.value.hint and "TIKTOKEN_CACHE_DIR" in caught.value.hint


def test_what_is_fetched_is_held_against_its_hash(site, tmp_path):
    site.answer = site.answer[:-1]
    with pytest.raises(HashMismatchError):
        rustllm.get_encoding("p50k_base")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_costs_no_more_than_itself(site, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    assert rustllm.get_encoding("p50k_base").encode("Hello") == [15496]


@pytest.mark.parametrize(
    "content",
    [b"YQ== 0\nYQ=! 1\n", b"YQ== 0\nYg== 0\n", b"YQ== x\n", b"YQ==\n", b"YQ== 99999999999\n"],
)
def test_a_malformed_file_of_ranks_names_the_line(tmp_path, content):
    path = tmp_path / "cl100k_base.tiktoken"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        rustllm.get_encoding("cl100k_base", vocab=path)
    assert caught.value.line == content.count(b"\n")


def test_names_that_are_not_known():
    with pytest.raises(ArgumentError):
        rustllm.get_encoding("cl100k")
    with pytest.raises(FileMissingError):
        rustllm.get_encoding("cl100k_base", vocab="nowhere/at/all")
    with pytest.raises(KeyError):
        rustllm.encoding_for_model("gpt-two")


def test_an_encoding_of_ones_own():
    ranks = {bytes([i]): i for i in range(256)} | {b"ab": 256, b"abc": 300}
    enc = Encoding("toy", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={"<e>": 299})
    assert enc.encode("abcab<e>", allowed_special="all") == [300, 256, 299]
    assert enc.decode([300, 256, 299]) == "abcab<e>"
    with pytest.raises(UnknownTokenError):
        enc.decode([298])
    with pytest.raises(ArgumentError):
        Encoding("toy", pat_str="x(", mergeable_ranks=ranks, special_tokens={})
    with pytest.raises(ArgumentError):
        Encoding("toy", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={"<e>": 300})
    few = Encoding("few", pat_str="gpt2", mergeable_ranks={b"a": 0}, special_tokens={})
    with pytest.raises(TokenizerError):
        few.encode("ab")


@pytest.mark.parametrize("piece", ["a", "^", " ", "1", "\n", "é", "中", "ab"])
def test_a_megabyte_of_one_thing_takes_no_time_to_speak_of(piece):
    enc = rustllm.get_encoding("cl100k_base", vocab=RANKS / "cl100k_base.tiktoken")
    text = piece * (1_000_000 // len(piece.encode()))
    assert enc.decode(enc.encode_to_numpy(text)) == text


def test_arrays_of_long_texts_are_their_own_however_they_are_made(ours):
    texts = [f"{word} naïve text 123 " * 20_000 for word in ("one", "other", "third")]
    expected = [ours.encode(text) for text in texts]
    arrays = []
    for text in texts:  # each is handed over while the next is written
        ours.encode_to_numpy("short")
        arrays.append(ours.encode_to_numpy(text))
    assert [array.tolist() for array in arrays] == expected
    assert all(array.flags.writeable and array.flags.c_contiguous for array in arrays)
    arrays[0][:] = 7
    kept = arrays[1][5:10]
    del arrays[1]
    gc.collect()
    again = ours.encode_to_numpy(texts[0])
    assert kept.tolist() == expected[1][5:10]
    assert again.tolist() == expected[0]
    assert pickle.loads(pickle.dumps(again)).tolist() == expected[0]


def test_every_name_of_tiktokens_class_is_there(ours):
    tiktoken = pytest.importorskip("tiktoken")
    for name in dir(tiktoken.Encoding):
        if not name.startswith("__"):
            assert hasattr(ours, name), name


@pytest.mark.parametrize(
    "text",
    ["hello fanta", "hello ", "a\n\n", " \n ", "naï", "中", "x<|endoftext|>", "x<|endoftext|>y"],
)
def test_unstable_encoding_is_that_of_tiktoken(ours, theirs, text):
    certain, completions = ours.encode_with_unstable(text, allowed_special="all")
    want_certain, want = theirs.encode_with_unstable(text, allowed_special="all")
    assert certain == want_certain
    assert sorted(completions) == sorted(map(list, want))


def test_offsets_say_where_each_token_begins(ours, theirs):
    text = "naïve 中文 🏃‍♂️ don't stop"
    ids = theirs.encode_ordinary(text)
    assert ours.decode_with_offsets(ids) == theirs.decode_with_offsets(ids)
    array, offsets = ours.encode_with_offsets(text)
    assert array.tolist() == ids
    assert offsets[:, 0].tolist() == theirs.decode_with_offsets(ids)[1]
    assert offsets[-1, 1] == len(text)


def test_saving_and_loading_again(ours, tmp_path):
    path = tmp_path / f"{ours.name}.tiktoken"
    ours.save(path)
    assert path.read_bytes() == (RANKS / path.name).read_bytes()
    again = rustllm.load_tokenizer(path)
    assert again.encode("Hello world") == ours.encode("Hello world")


def test_what_tiktoken_keeps_private_is_there_too(ours, theirs):
    assert ours._mergeable_ranks == theirs._mergeable_ranks
    assert ours.token_byte_values() == sorted(theirs.token_byte_values())
    assert ours._encode_bytes(b" \xec\x8b\xa4\xed") == theirs._encode_bytes(b" \xec\x8b\xa4\xed")
    assert ours._encode_single_piece("hello") == theirs._encode_single_piece("hello")
    assert ours.decode_bytes_batch([[5, 6]]) == theirs.decode_bytes_batch([[5, 6]])
