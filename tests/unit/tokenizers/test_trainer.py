"""BpeTrainer: the merges of Hugging Face's tokenizers, whatever the text, files or threads."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm._core import split
from rustllm._core.pretoken_counts import PretokenCounts
from rustllm._core.train import MergeLoop
from rustllm.errors import (
    ArgumentError,
    FileFormatError,
    FileMissingError,
    TruncatedFileError,
)
from rustllm.tokenizers.pretoken_counting import TextCounts
from rustllm.tokenizers.trainer import BpeTrainer


def peer_merges(texts, size, specials=(), min_frequency=0, max_token_length=None, files=None):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    options = {} if max_token_length is None else {"max_token_length": max_token_length}
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(specials),
        min_frequency=min_frequency,
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
        **options,
    )
    if files is not None:
        tokenizer.train(files, trainer)
    else:
        tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    return merges, model["vocab"]


def assert_same_as_peer(trained, peer):
    merges, vocab = peer
    assert trained.merges_as_text() == merges
    assert trained.to_json()["model"]["vocab"] == vocab


@pytest.mark.parametrize("size", [300, 500, 2000])
def test_merges_and_ids_equal_those_of_tokenizers(size):
    rng = random.Random(size)
    words = ["".join(rng.choices("abcde", k=rng.randint(1, 9))) for _ in range(400)]
    texts = [
        " ".join(rng.choices(words, k=50)) + rng.choice(["", ".", "\r\n", "  \n"]) * 2
        for _ in range(60)
    ]
    assert_same_as_peer(BpeTrainer(size).train(texts), peer_merges(texts, size))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(alphabet="ab '1.\né", max_size=40), max_size=8),
    st.integers(257, 330),
    st.sampled_from([0, 1, 2, 3]),
)
def test_small_texts_that_run_out_of_pairs_give_the_merges_of_tokenizers(texts, size, least):
    trained = BpeTrainer(size, min_frequency=least).train(texts)
    assert_same_as_peer(trained, peer_merges(texts, size, min_frequency=least))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="aab", max_size=60), min_size=1, max_size=4))
def test_tokens_spelt_in_two_ways_are_handled_as_tokenizers_does(texts):
    """Few letters and long words: merges that spell a token again are common."""
    assert_same_as_peer(BpeTrainer(300).train(texts), peer_merges(texts, 300))


def test_special_tokens_come_first_and_share_ids_with_what_spells_them():
    texts = ["<end> the ending of the end", "a b ab abab <end>"] * 3
    specials = ["<end>", "ab", "a", "<end>", "日本"]
    trained = BpeTrainer(275, special_tokens=specials).train(texts)
    assert_same_as_peer(trained, peer_merges(texts, 275, specials=list(dict.fromkeys(specials))))
    assert trained.special_tokens == {"<end>": 0, "ab": 1, "a": 2, "日本": 3}


@pytest.mark.parametrize("longest", [1, 2, 3, 5])
def test_max_token_length_is_that_of_tokenizers(longest):
    texts = ["banana bandana cabana abracadabra " * 5]
    trained = BpeTrainer(400, max_token_length=longest).train(texts)
    assert_same_as_peer(trained, peer_merges(texts, 400, max_token_length=longest))


@pytest.fixture
def text_file(tmp_path):
    rng = random.Random(7)
    lines = []
    for _ in range(20_000):
        lines.append("".join(rng.choices("abcdefg  ,.1é日", k=rng.randint(0, 40))))
        lines.append(rng.choice(["\n", "\r\n", "\n\n", " \n"]))
    path = tmp_path / "text.txt"
    path.write_bytes("".join(lines).encode())
    return path


def test_files_are_read_line_by_line_as_tokenizers_does(text_file):
    trained = BpeTrainer(800).train_files([text_file])
    assert_same_as_peer(trained, peer_merges(None, 800, files=[str(text_file)]))


def test_the_number_of_threads_changes_nothing(text_file):
    results = [TextCounts("cl100k", n) for n in (1, 2, 5)]
    for counts in results:
        counts.add_files([text_file])
    assert results[0].items() == results[1].items() == results[2].items()
    merges = [
        BpeTrainer(700, "cl100k", num_threads=n).train_files([text_file]).merges() for n in (1, 3)
    ]
    assert merges[0] == merges[1]


@pytest.mark.parametrize("name", split.NAMES)
def test_a_file_without_line_ends_is_cut_where_no_pretoken_is_harmed(tmp_path, name):
    rng = random.Random(3)
    text = "".join(rng.choices("abcé日 ,'s1\t/-", k=400_000))
    path = tmp_path / "line.txt"
    path.write_bytes(text.encode())
    counts = TextCounts(name, num_threads=3)
    counts.add_files([path])
    whole = TextCounts(name, num_threads=1)
    whole.add([text])
    assert counts.items() == whole.items()


def test_counts_equal_the_splitter_s_reference():
    text = "It's 12345 o'clock;  naïve 日本語 text\u3000with spaces \n\n and " + "x" * 40 + "!" * 16
    counts = TextCounts("o200k")
    counts.add([text] * 3)
    expected: dict[bytes, int] = {}
    data, at = text.encode(), 0
    for end in split.pretoken_ends(split.Pattern.O200K, data, reference=True):
        expected[data[at:end]] = expected.get(data[at:end], 0) + 3
        at = end
    assert dict(counts.items()) == expected


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.binary(min_size=1, max_size=40), st.integers(1, 1 << 40), max_size=200))
def test_the_hash_table_counts_exactly(expected):
    counts = TextCounts("gpt2")
    for word, count in expected.items():
        counts.counts.add_pretoken(word, count)
        counts.counts.add_pretoken(word)
    assert counts.items() == sorted((word, count + 1) for word, count in expected.items())


def test_many_distinct_pretokens_survive_the_hand_over_between_tables():
    texts = [f"w{i} " + "y" * (i % 40) + str(i) for i in range(60_000)]
    counts = TextCounts(r"\S+|\s+", num_threads=1)
    counts.add(texts)
    fast = TextCounts("gpt2", num_threads=2)
    fast.add(texts)
    assert sum(len(word) * n for word, n in counts.items()) == sum(map(len, texts))
    assert sum(len(word) * n for word, n in fast.items()) == sum(map(len, texts))
    assert dict(fast.items())[b"w"] == 60_000


def test_an_expression_that_is_no_known_pattern_goes_through_regex(tmp_path):
    pytest.importorskip("regex")
    path = tmp_path / "t.txt"
    path.write_text("ab-ab cd\nab", encoding="utf-8")
    counts = TextCounts(r"[a-z]+")
    counts.add_files([path])
    assert dict(counts.items()) == {b"ab": 3, b"-": 1, b" ": 1, b"cd": 1, b"\n": 1}


def test_a_known_expression_is_recognised():
    expression = split.EXPRESSIONS["o200k"][0]
    assert (
        BpeTrainer(270, expression).train(["Hello hello"]).merges()
        == BpeTrainer(270, "o200k").train(["Hello hello"]).merges()
    )


def test_without_a_pattern_merges_cross_spaces():
    assert ("a", "Ġ") in BpeTrainer(258, None).train(["a a a a"]).merges_as_text()


def test_counts_are_saved_loaded_and_added_up(tmp_path, text_file):
    one, two = TextCounts("gpt2"), TextCounts("gpt2")
    one.add(["some text here", "and there"])
    two.add(["some more text"])
    one.save(tmp_path / "one")
    two.save(tmp_path / "two")
    total = TextCounts.load(tmp_path / "one")
    total.merge(TextCounts.load(tmp_path / "two"))
    both = TextCounts("gpt2")
    both.add(["some text here", "and there", "some more text"])
    assert total.items() == both.items()
    trainer = BpeTrainer(280)
    again = trainer.train_counts(total).merges()
    assert again == trainer.train_counts(total).merges()  # the counts are still there
    assert again == trainer.train(["some text here", "and there", "some more text"]).merges()


def test_counting_resumes_where_the_checkpoint_ends(tmp_path, text_file):
    checkpoint = tmp_path / "counts"
    other = tmp_path / "other.txt"
    other.write_text("quite another text\n", encoding="utf-8")
    trainer = BpeTrainer(400)
    trainer.count_files([text_file], checkpoint)
    resumed = trainer.count_files([text_file, other], checkpoint)
    assert resumed.items() == trainer.count_files([text_file, other]).items()
    counted = {name for name, _ in TextCounts.load(checkpoint).sources}
    assert counted == {str(text_file), str(other)}


def test_a_damaged_count_file_is_refused(tmp_path):
    counts = TextCounts("gpt2")
    counts.add(["a count file of some length"])
    path = tmp_path / "counts"
    counts.save(path)
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(FileFormatError):
            TextCounts.load(path)
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises((FileFormatError, TruncatedFileError)):
            TextCounts.load(path)


def test_counts_of_different_patterns_do_not_mix():
    with pytest.raises(ArgumentError):
        TextCounts("gpt2").merge(TextCounts("o200k"))


def test_bytes_that_are_not_utf8_are_refused_with_their_place(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"good line\nbad \xff line\n")
    with pytest.raises(FileFormatError) as caught:
        BpeTrainer(300).train_files([path])
    assert (caught.value.path, caught.value.offset) == (str(path), 14)


def test_bad_arguments_are_refused(tmp_path):
    for wrong in (
        {"vocab_size": 0},
        {"vocab_size": 255},
        {"vocab_size": 257, "special_tokens": ["<a>", "<b>"]},
        {"vocab_size": 300, "min_frequency": -1},
        {"vocab_size": 300, "num_threads": 0},
        {"vocab_size": 300, "special_tokens": "abc"},
        {"vocab_size": 300, "special_tokens": [""]},
        {"vocab_size": 300, "max_token_length": 0},
        {"vocab_size": 300, "pattern": "("},
    ):
        with pytest.raises(ArgumentError):
            BpeTrainer(**wrong)
    with pytest.raises(FileMissingError):
        BpeTrainer(300).train_files([tmp_path / "absent"])
    with pytest.raises(ArgumentError):
        BpeTrainer(300).train_files(tmp_path)
    with pytest.raises(ArgumentError):
        BpeTrainer(300).train("one text")
    with pytest.raises(ArgumentError) as caught:
        BpeTrainer(300).train(["fine", 3])
    assert caught.value.key == 1
    with pytest.raises(ArgumentError):
        BpeTrainer(300).train(["\ud800"])


def test_an_error_in_the_iterator_or_the_callback_comes_through():
    def texts():
        yield "fine"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        BpeTrainer(300).train(texts())

    def stop(stage, done, total):
        if stage == "merge":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        BpeTrainer(300, progress=stop).train(["some text"])


def test_progress_ends_with_everything_done(text_file):
    seen = []
    BpeTrainer(300, progress=lambda *event: seen.append(event)).train_files([text_file])
    size = text_file.stat().st_size
    assert ("count", size, size) in seen
    assert seen[-1] == ("merge", 300, 300)


def test_no_text_gives_the_alphabet():
    trained = BpeTrainer(1000).train([])
    assert trained.n_vocab == 256 and trained.merges() == []
    assert BpeTrainer(256).train(["abc"]).n_vocab == 256


def test_one_word_of_a_million_letters_is_trained_like_any_other():
    rng = random.Random(0)
    text = "".join(rng.choices("abcdefgh", k=1_000_000))
    trained = BpeTrainer(1000).train([text])
    assert len(trained.merges()) == 744
    small = text[:3000]
    assert_same_as_peer(BpeTrainer(600).train([small]), peer_merges([small], 600))


def test_a_run_of_one_letter_is_trained_like_any_other():
    for n in (2, 3, 7, 64, 1000, 1001):
        text = "a" * n
        assert_same_as_peer(BpeTrainer(300).train([text]), peer_merges([text], 300))


def test_ranks_train_tiktoken(tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    trained = BpeTrainer(400).train(["the theory of the thing there " * 20])
    encoding = tiktoken.Encoding(
        "trained",
        pat_str=split.EXPRESSIONS["gpt2"][0],
        mergeable_ranks=trained.mergeable_ranks(),
        special_tokens={},
    )
    ids = encoding.encode("the theory")
    assert b"".join(trained.token_bytes()[i] for i in ids) == b"the theory"
    assert len(ids) == 2


def test_saved_files_are_read_by_their_owners(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    text = "the theory of the thing there, naïve 日本 " * 20
    for pattern in ("gpt2", "cl100k", "smollm", None):
        trained = BpeTrainer(400, pattern, special_tokens=["<s>"]).train([text])
        trained.save(tmp_path / "tokenizer.json")
        peer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        ids = peer.encode("<s>" + text).ids
        assert ids[0] == 0 and peer.decode(ids[1:]) == text
    trained.save(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert vocab["<s>"] == 0 and len(vocab) == trained.n_vocab
    assert len((tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()) == 1 + len(
        trained.merges()
    )
    trained.save(tmp_path / "x.tiktoken")
    from tiktoken.load import load_tiktoken_bpe

    assert load_tiktoken_bpe(str(tmp_path / "x.tiktoken")) == trained.mergeable_ranks()


def give_words(loop, words, counts, byte_ids):
    table = PretokenCounts()
    table.add_items(list(zip(words, counts, strict=True)))
    table.fill(loop, byte_ids)


def merged(words, counts, size, most_postings, strings):
    byte_ids = list(range(256))
    spellings = {bytes([byte]): byte for byte in byte_ids} | strings
    loop = MergeLoop(byte_ids, spellings, len(spellings))
    give_words(loop, words, counts, byte_ids)
    loop.run(size, most_postings=most_postings)
    return loop.merges_by_rank(), loop.token_strings(), loop.statistics()["restored"]


@pytest.mark.parametrize("alphabet", [b"ab", b"aab", b"etaoinshrdlu"])
@pytest.mark.parametrize("n_words", [1, 3, 10])
def test_places_that_are_forgotten_and_found_again_change_no_merge(alphabet, n_words):
    """Words of few letters, where tokens are spelt in two ways, and tokens that exist before."""
    rng = random.Random(n_words)
    for _ in range(8):
        words = list(
            {bytes(rng.choices(alphabet, k=rng.choice([5, 300, 2000]))) for _ in range(n_words)}
        )
        counts = [rng.choice([1, 2, 100]) for _ in words]
        strings = {bytes([byte] * 3): 256 + i for i, byte in enumerate(sorted(set(alphabet)))}
        *expected, restored = merged(words, counts, 400, 1 << 40, strings)
        assert restored == 0
        for most in (0, 30, 500):
            *found, restored = merged(words, counts, 400, most, strings)
            assert found == expected
            assert restored > 0 or max(map(len, words)) < 2000


def test_ids_beyond_16_bits_are_merged_like_others():
    rng = random.Random(5)
    words = [bytes(rng.choices(b"abcdefgh", k=40)) for _ in range(60)]
    byte_ids = list(range(256))
    spellings = {bytes([byte]): byte for byte in byte_ids}
    results = []
    for first in (256, 65_500, 65_534, 70_000):
        loop = MergeLoop(byte_ids, spellings, first)
        give_words(loop, words, [1] * len(words), byte_ids)
        loop.run(600)
        shift = [x if x < 256 else x - first + 256 for row in loop.merges_by_rank() for x in row]
        results.append(shift)
    assert len(results[0]) > 300
    assert all(result == results[0] for result in results)


def test_a_line_over_many_stretches_is_counted_once(tmp_path):
    path = tmp_path / "line.txt"
    line = "abcdefghij" * 150_000
    path.write_text(f"one two\n{line}\nthree {line}")
    for n_threads in (1, 3):
        counts = TextCounts("gpt2", n_threads)
        counts.add_files([path])
        assert dict(counts.items()) == {
            b"one": 1, b" two": 1, b"\n": 2, b"three": 1,
            line.encode(): 1, b" " + line.encode(): 1,
        }  # fmt: skip
