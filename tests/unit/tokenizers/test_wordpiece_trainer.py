"""WordPiece training: the vocabulary that ``tokenizers`` finds, and the same one every time."""

import lzma
import random

import pytest
from paths import SHARED, needs_shared

from rustllm import load_tokenizer
from rustllm.errors import ArgumentError, FileFormatError
from rustllm.tokenizers.pretoken_counting import TextCounts
from rustllm.tokenizers.word_counting import count_words
from rustllm.tokenizers.wordpiece_merges_ref import merge_words
from rustllm.tokenizers.wordpiece_trainer import WordPieceTrainer

TEXTS = ["Low lower lowest, slow!", "The naïve café sold slower 日本 1234 cups", "low lows"] * 4


def theirs(texts, size, special, lowercase=True, **options):
    """Vocabulary of ``tokenizers``, its ids made to repeat by naming inner characters first."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special, show_progress=False, **options
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def letters_first(texts, ours):
    """Special tokens that fix the order of all characters."""
    words = count_words(texts, ours.normalizer, ours.pre_tokenizer)
    alphabet = sorted({char for word in words for char in word})
    return ["[UNK]", *alphabet, *(f"##{char}" for char in alphabet)]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("size", [60, 90, 1000])
def test_the_vocabulary_of_tokenizers(size, lowercase):
    special = letters_first(TEXTS, WordPieceTrainer(1, lowercase=lowercase))
    ours = WordPieceTrainer(size, special, lowercase=lowercase).train(TEXTS)
    expected = theirs(TEXTS, size, special, lowercase)
    assert ours.pipeline.model.vocab == expected.get_vocab()


@pytest.mark.parametrize("seed", range(20))
def test_random_words_with_many_ties(seed):
    rng = random.Random(seed)
    texts = ["".join(rng.choices("ab c", k=30)) for _ in range(20)]
    special = letters_first(texts, WordPieceTrainer(1))
    for frequency in (0, 3):
        ours = WordPieceTrainer(200, special, frequency).train(texts)
        expected = theirs(texts, 200, special, min_frequency=frequency)
        assert ours.pipeline.model.vocab == expected.get_vocab()


@needs_shared
@pytest.mark.parametrize("name", ["english", "multilingual"])
def test_corpora(name, tmp_path):
    with lzma.open(SHARED / f"corpora/{name}.txt.xz", "rt", encoding="utf-8", newline="") as file:
        texts = file.read(150_000).splitlines()
    special = letters_first(texts, WordPieceTrainer(1))
    ours = WordPieceTrainer(4000, special).train(texts)
    expected = theirs(texts, 4000, special)
    assert ours.pipeline.model.vocab == expected.get_vocab()
    tokenizers = pytest.importorskip("tokenizers")
    trained = WordPieceTrainer(2000).train(texts)
    trained.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    read = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in texts[:200]:
        assert again.encode(text) == trained.encode(text) == read.encode(text).ids


def test_the_same_text_gives_the_same_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    files = WordPieceTrainer(80).train_files([path])
    assert files._source == WordPieceTrainer(80).train(TEXTS)._source
    assert files._source == WordPieceTrainer(80).train(TEXTS[::-1])._source


def test_a_limited_alphabet_keeps_the_frequent_characters():
    trained = WordPieceTrainer(100, ["[UNK]"], limit_alphabet=2).train(["aab aab c"])
    vocab = trained.pipeline.model.vocab
    assert "a" in vocab and "b" in vocab and "c" not in vocab
    assert trained.encode("c") == [0]


def test_bad_arguments_and_files(tmp_path):
    with pytest.raises(ArgumentError):
        WordPieceTrainer(0)
    with pytest.raises(ArgumentError):
        WordPieceTrainer(10, "[UNK]")
    with pytest.raises(ArgumentError):
        WordPieceTrainer(10).train("one text")
    (tmp_path / "bad").write_bytes(b"ok\n\xff")
    with pytest.raises(FileFormatError) as caught:
        WordPieceTrainer(10).train_files([tmp_path / "bad"])
    assert caught.value.fields["offset"] == 3


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("alphabet", ["abc", "aé日😀", "".join(map(chr, range(0x400, 0xA00)))])
def test_the_compiled_merges_are_those_of_the_plain_twin(seed, alphabet):
    rng = random.Random(seed)
    words = {}
    for _ in range(1500 if len(alphabet) > 9 else 60):
        # two letters side by side come often, in an alphabet of any size
        start = rng.randrange(len(alphabet))
        near = alphabet[start : start + 4]
        words["".join(rng.choices(near, k=rng.randint(1, 9)))] = rng.randint(1, 5)
    words = dict(sorted(words.items()))
    trainer = WordPieceTrainer(9000, [])
    vocab = trainer._learn(words)["vocab"]
    letters = {char for word in words for char in word}
    expected = {token: id for token, id in vocab.items() if token.removeprefix("##") in letters}
    expected["[UNK]"] = 0
    spelt = [
        ([expected["##" + char if i else char] for i, char in enumerate(word)], count)
        for word, count in words.items()
    ]
    merge_words(spelt, expected, 9000, prefix="##")
    assert vocab == expected


@pytest.mark.parametrize("prefix", ["a", "", "@@"])
def test_words_may_start_like_the_prefix(prefix):
    words = {"abab": 4, "aab": 3, "ba": 5, "@@b": 2, "@b": 1}
    options = {"continuing_subword_prefix": prefix, "special_tokens": ["[UNK]"]}
    vocab = WordPieceTrainer(40, **options)._learn(words)["vocab"]
    assert sorted(vocab.values()) == list(range(len(vocab)))
    assert {"a", "b", "@"} <= set(vocab)


def test_counts_are_kept_and_merged(tmp_path):
    lines = [line + "\n" for line in TEXTS]
    trainer = WordPieceTrainer(80)
    first, second = trainer.count(lines[:3]), trainer.count(lines[3:])
    second.save(tmp_path / "counts")
    first.merge(TextCounts.load(tmp_path / "counts"))
    assert trainer.train_counts(first)._source == trainer.train(lines)._source
    with pytest.raises(ArgumentError, match="pattern"):
        trainer.train_counts(TextCounts("gpt2"))
