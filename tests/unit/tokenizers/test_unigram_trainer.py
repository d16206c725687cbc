"""Unigram training: the plain twin, ``tokenizers``, and what must never happen."""

import json
import lzma
import random

import numpy as np
import pytest
from paths import SHARED, needs_shared

from rustllm import load_tokenizer
from rustllm.errors import ArgumentError, FileFormatError
from rustllm.tokenizers.pretoken_counting import TextCounts
from rustllm.tokenizers.unigram_learning import learn_pieces, seed_loop
from rustllm.tokenizers.unigram_learning_ref import learn_pieces_ref, seeds_ref
from rustllm.tokenizers.unigram_trainer import METASPACE, NMT_NFKC, UnigramTrainer
from rustllm.tokenizers.word_counting import count_words, stretch_pattern, words_of_stretches

TEXTS = ["Low lower lowest, slow!", "The naïve café sold slower 日本 1234 cups", "low lows"] * 4


def drawn_words(seed, alphabet="abc\0é日", n=60, longest=30):
    rng = random.Random(seed)
    words = {}
    for _ in range(n):
        word = "".join(rng.choices(alphabet, k=rng.randint(1, longest)))
        words[word] = words.get(word, 0) + rng.randint(1, 9)
    return dict(sorted(words.items()))


def corpus(name, n):
    with lzma.open(SHARED / f"corpora/{name}.txt.xz", "rt", encoding="utf-8", newline="") as file:
        return file.read(n)


@pytest.mark.parametrize("seed", range(12))
def test_seeds_are_those_of_the_plain_twin(seed):
    words = drawn_words(seed)
    for longest, size in ((16, 1_000_000), (3, 1_000_000), (1, 10), (16, 20)):
        loop = seed_loop(words, longest, size)
        expected = seeds_ref(words, longest, size)
        assert [piece for piece, _ in loop.pieces()] == [piece for piece, _ in expected]
        assert [score for _, score in loop.pieces()] == pytest.approx([s for _, s in expected])


@pytest.mark.parametrize("seed", range(12))
def test_pieces_are_those_of_the_plain_twin(seed):
    # characters with weights that no two sums share, so that no rounding decides
    words = drawn_words(seed, "abcdefgh\0é日")
    for options in ({}, {"max_piece_length": 5, "n_sub_iterations": 1, "shrinking_factor": 0.5}):
        ours = learn_pieces(words, 40, n_threads=2, **options)
        expected = dict(learn_pieces_ref(words, 40, **options))
        assert {piece for piece, _ in ours} == set(expected)
        for piece, score in ours:
            assert score == pytest.approx(expected[piece], abs=1e-8)


def test_long_words_do_not_run_out_of_numbers():
    rng = random.Random(5)
    words = {"".join(rng.choices("abcdefghij", k=5000)): 3, "x" * 20_000: 1, "ab": 2}
    loop = seed_loop(words, 16, 1_000_000)
    expected = np.zeros(len(loop))
    total = loop.expect(0, len(words), expected)
    assert np.isfinite(total)
    assert np.isfinite(expected).all()
    lengths = loop.lengths.astype(float)
    lengths[0] = 1
    covered = sum(len(word) * count for word, count in words.items())
    assert (expected * lengths).sum() == pytest.approx(covered)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_change_no_bit(threads):
    words = drawn_words(3, "abcdefgh", n=3000, longest=12)
    assert learn_pieces(words, 300, n_threads=threads) == learn_pieces(words, 300, n_threads=1)


def theirs(texts, **options):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    normalizers = tokenizers.normalizers
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(show_progress=False, **options)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@needs_shared
@pytest.mark.parametrize("name", ["english", "multilingual"])
def test_without_pruning_the_pieces_and_scores_of_tokenizers(name):
    texts = corpus(name, 20_000).splitlines(keepends=True)
    special = ["<s>", "</s>"]
    # so many pieces are asked for that expectation and maximisation alone decide
    ours = UnigramTrainer(60_000, special).train(texts).pipeline.model
    expected = theirs(texts, vocab_size=60_000, special_tokens=special, unk_token="<unk>")
    vocab = expected.get_vocab()
    assert set(ours.vocab) == set(vocab)
    assert {ours.vocab[token] for token in ["<unk>", *special]} == {0, 1, 2}
    scores = dict(json.loads(expected.to_str())["model"]["vocab"])
    # characters that no piece needs have scores by an order that they draw
    least = min(scores.values()) + 0.01
    for piece, score in ours.pieces:
        if score > least:
            assert score == pytest.approx(scores[piece], abs=1e-6)


@needs_shared
def test_a_corpus_is_written_no_worse_than_by_tokenizers(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    texts = corpus("english", 120_000).splitlines(keepends=True)
    ours = UnigramTrainer(1500, ["<s>"]).train(texts)
    expected = theirs(texts, vocab_size=1500, special_tokens=["<s>"], unk_token="<unk>")
    assert ours.n_vocab == expected.get_vocab_size() == 1500
    shared = set(ours.pipeline.model.vocab) & set(expected.get_vocab())
    assert len(shared) > 0.9 * 1500
    n_ours = sum(map(len, ours.encode_batch(texts)))
    n_theirs = sum(len(found.ids) for found in expected.encode_batch(texts))
    assert n_ours <= n_theirs * 1.01
    ours.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    read = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*texts[:300], "zażółć gęślą 日本"]:
        ids = ours.encode(text)
        assert again.encode(text) == ids == read.encode(text).ids
        assert again.decode(ids) == read.decode(ids, skip_special_tokens=False)


def test_special_tokens_and_the_alphabet():
    ours = UnigramTrainer(60, ["<s>", "<unk>"], initial_alphabet=["Ω", "xyz", ""]).train(TEXTS)
    model = ours.pipeline.model
    assert (model.vocab["<s>"], model.vocab["<unk>"], model.unk_id) == (0, 1, 1)
    assert {"Ω", "x"} <= set(model.vocab)
    assert ours.special_tokens == {"<s>": 0, "<unk>": 1}
    first = UnigramTrainer(60, ["<s>"]).train(TEXTS)
    assert first.special_tokens == {"<s>": 1}
    assert first.pipeline.model.unk_id == 0
    without = UnigramTrainer(60, unk_token=None).train(TEXTS)
    assert without.pipeline.model.unk_id is None
    scores = [score for _, score in model.pieces][2:]
    assert scores == sorted(scores, reverse=True)


def test_files_threads_and_merged_counts_give_the_same_file(tmp_path):
    lines = [line + "\n" for line in TEXTS]
    for name, part in (("a", lines[:5]), ("b", lines[5:])):
        (tmp_path / name).write_text("".join(part), encoding="utf-8")
    whole = UnigramTrainer(60).train(lines)._source
    trainer = UnigramTrainer(60, num_threads=2)
    checkpoint = tmp_path / "counts"
    assert trainer.train_files([tmp_path / "a", tmp_path / "b"], checkpoint)._source == whole
    assert trainer.train_counts(TextCounts.load(checkpoint))._source == whole
    counts = trainer.count_files([tmp_path / "a"])
    counts.merge(trainer.count_files([tmp_path / "b"]))
    assert trainer.train_counts(counts)._source == whole
    assert UnigramTrainer(60).train(lines[::-1])._source == whole


def test_nothing_to_learn_from():
    assert UnigramTrainer(10).train([]).n_vocab == 1
    assert UnigramTrainer(10).train([""]).n_vocab == 1
    # NMT's clean-up leaves NUL alone
    assert UnigramTrainer(10).train(["\0"]).n_vocab == 3


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"vocab_size": 0}, "vocab_size"),
        ({"special_tokens": "abc"}, "special_tokens"),
        ({"special_tokens": [""]}, "special_tokens"),
        ({"unk_token": ""}, "unk_token"),
        ({"max_piece_length": 0}, "max_piece_length"),
        ({"max_piece_length": 251}, "max_piece_length"),
        ({"n_sub_iterations": 0}, "n_sub_iterations"),
        ({"seed_size": 1 << 25}, "seed_size"),
        ({"shrinking_factor": 1.0}, "shrinking_factor"),
        ({"shrinking_factor": float("nan")}, "shrinking_factor"),
    ],
)
def test_bad_arguments(change, key):
    with pytest.raises(ArgumentError) as caught:
        UnigramTrainer(**{"vocab_size": 100, **change})
    assert caught.value.key == key


def test_bad_input(tmp_path):
    with pytest.raises(ArgumentError, match="no room"):
        UnigramTrainer(5).train(TEXTS)
    with pytest.raises(ArgumentError):
        UnigramTrainer(50).train("one text")
    with pytest.raises(ArgumentError, match="surrogate"):
        UnigramTrainer(50).train(["\ud800"])
    with pytest.raises(ArgumentError, match="pattern"):
        UnigramTrainer(50).train_counts(TextCounts("gpt2"))
    (tmp_path / "bad").write_bytes(b"fine\n\xff\n")
    with pytest.raises(FileFormatError) as caught:
        UnigramTrainer(50).train_files([tmp_path / "bad"])
    assert caught.value.offset == 5


def test_progress_is_told_and_may_stop_it():
    told = []
    UnigramTrainer(60, progress=lambda *now: told.append(now)).train(TEXTS)
    assert {stage for stage, _, _ in told} == {"count", "words", "pieces"}

    def stop(stage, done, total):
        if stage == "pieces":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        UnigramTrainer(60, progress=stop).train(TEXTS)


# -- words ----------------------------------------------------------------------------------------

BERT = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}
PIPELINES = [
    (NMT_NFKC, METASPACE),
    (None, METASPACE),
    (NMT_NFKC, {**METASPACE, "prepend_scheme": "never"}),
    ({"type": "NFC"}, METASPACE),
    (BERT, {"type": "BertPreTokenizer"}),
    ({"type": "Lowercase"}, {"type": "WhitespaceSplit"}),
    (BERT, METASPACE),
    (None, {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}),
]


def stretched(texts, normalizer, pre_tokenizer):
    counts = TextCounts(stretch_pattern(normalizer, pre_tokenizer))
    counts.add(texts)
    return words_of_stretches(counts.items(), normalizer, pre_tokenizer)


@pytest.mark.parametrize(("normalizer", "pre_tokenizer"), PIPELINES)
def test_stretches_give_the_words_of_whole_texts(normalizer, pre_tokenizer):
    rng = random.Random(1)
    odd = "ab. \t\n\r\x0b\x01\x7f\u00a0\u00ad\u0301\u1680\u200b\u2014\u2028\u2581\u3000\ufeff日é⁂A1"
    texts = ["".join(rng.choices(odd + "   ", k=rng.randint(0, 12))) for _ in range(4000)]
    whole = {}
    for text in texts:
        for word, count in count_words([text], normalizer, pre_tokenizer).items():
            whole[word] = whole.get(word, 0) + count
    assert stretched(texts, normalizer, pre_tokenizer) == dict(sorted(whole.items()))


@pytest.mark.parametrize(("normalizer", "pre_tokenizer"), PIPELINES[:4])
def test_every_character_before_a_space(normalizer, pre_tokenizer):
    chars = [chr(i) for i in range(0x11000) if not 0xD800 <= i < 0xE000]
    # a letter of another text for each, so that words can be told apart
    for start in range(0, len(chars), 4096):
        some = chars[start : start + 4096]
        texts = [f"x{char} \t {char}y{i}" for i, char in enumerate(some)]
        whole = count_words(texts, normalizer, pre_tokenizer)
        assert stretched(texts, normalizer, pre_tokenizer) == whole
