"""Our tokenizers where transformers wants a fast one: the same answers as its own."""

import json
import pickle
import threading
import warnings

import pytest
from paths import SHARED, needs_shared

from rustllm import BpeTrainer, get_encoding, load_tokenizer

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
from rustllm.integrations.transformers import fast_tokenizer  # noqa: E402

pytestmark = [
    needs_shared,
    pytest.mark.filterwarnings("ignore"),  # transformers' own
]
MODELS = SHARED / "conformance/models/tokenizers" if SHARED else None
TEXTS = [
    "Hello, world!",
    "naïve café 😀 日本語 and a longer sentence than the others, 1234567",
    "",
    "  two  spaces\n",
]
PAIRS = [(text, other) for text, other in zip(TEXTS, TEXTS[::-1])]
OPTIONS = {"bert_base_cased": {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}}


@pytest.fixture(scope="module", params=["bert_base_cased", "gpt2", "gpt_neox", "llama2"])
def both(request):
    path = MODELS / f"{request.param}.json"
    options = OPTIONS.get(request.param, {"pad_token": "<pad>"})
    options = {**options, "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    ours = fast_tokenizer(load_tokenizer(path), **options)
    real = tokenizers.Tokenizer.from_file(str(path))
    return ours, transformers.PreTrainedTokenizerFast(tokenizer_object=real, **options)


CALLS = [
    {},
    {"add_special_tokens": False},
    {"padding": True},
    {"padding": "max_length", "max_length": 40},
    {"padding": True, "pad_to_multiple_of": 8, "padding_side": "left"},
    {"truncation": True, "max_length": 6},
    {"truncation": True, "max_length": 10, "stride": 1, "return_overflowing_tokens": True},
    {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_length": True},
    {"padding": True, "return_offsets_mapping": True, "padding_side": "left"},
    {"split_special_tokens": True},
]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_batches_of_texts_and_of_pairs(both, call):
    ours, theirs = both
    for inputs in ((TEXTS,), (TEXTS, TEXTS[::-1])):
        assert ours(*inputs, **call).data == theirs(*inputs, **call).data
    for text in TEXTS:
        assert ours(text, **call).data == theirs(text, **call).data


def test_words_and_characters(both):
    ours, theirs = both
    for call in ({}, {"padding": True}):
        one, other = ours(TEXTS, **call), theirs(TEXTS, **call)
        for i, text in enumerate(TEXTS):
            assert one.tokens(i) == other.tokens(i)
            assert one.word_ids(i) == other.word_ids(i)
            assert one.sequence_ids(i) == other.sequence_ids(i)
            for at in range(len(text)):
                assert one.char_to_token(i, at) == other.char_to_token(i, at)
            for token in range(len(one["input_ids"][i])):
                assert one.token_to_chars(i, token) == other.token_to_chars(i, token)


def test_words_that_are_cut_already(both):
    ours, theirs = both
    words = [["Hello", "world"], ["café", "a longer one", ""]]
    call = {"is_split_into_words": True, "return_offsets_mapping": True}
    one, other = ours(words, **call), theirs(words, **call)
    assert one.data == other.data
    assert [one.word_ids(i) for i in range(2)] == [other.word_ids(i) for i in range(2)]


def test_decoding(both):
    ours, theirs = both
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        for skip in (False, True):
            call = {"skip_special_tokens": skip}
            assert ours.decode(ids, **call) == theirs.decode(ids, **call)
        assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
        assert ours.tokenize(text) == theirs.tokenize(text)


def test_tensors(both):
    ours, theirs = both
    one = ours(TEXTS, padding=True, return_tensors="np")
    other = theirs(TEXTS, padding=True, return_tensors="np")
    for name in other:
        assert (one[name] == other[name]).all() and one[name].dtype == other[name].dtype


def test_tokens_added_later_are_found(both):
    ours, theirs = (pickle.loads(pickle.dumps(tokenizer)) for tokenizer in both)
    for tokenizer in (ours, theirs):
        tokenizer("a<new>b")
        assert tokenizer.add_tokens(["<new>", "quux"]) == 2
        assert tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]}) == 1
    text = "a<new>b quux <extra>"
    assert ours(text).data == theirs(text).data
    assert len(ours) == len(theirs)


def test_saved_and_read_by_transformers(both, tmp_path):
    ours, theirs = both
    ours.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    messages = [{"role": "user", "content": "hi"}]
    rendered = ours.apply_chat_template(messages, tokenize=False)
    assert rendered == "<user>hi"
    ids = ours.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert ids == ours(rendered, add_special_tokens=False)["input_ids"]
    ours.save_pretrained(tmp_path)
    again = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert again(TEXTS)["input_ids"] == theirs(TEXTS)["input_ids"]
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["truncation"] is None and saved["padding"] is None


def test_threads_do_not_see_each_others_truncation(both):
    ours, _ = both
    failures = []

    def work(length):
        for _ in range(100):
            found = ours(TEXTS[1], truncation=True, max_length=length)["input_ids"]
            if len(found) != length:
                failures.append((length, len(found)))

    threads = [threading.Thread(target=work, args=(length,)) for length in (4, 5, 6, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_encodings_can_be_pickled(both):
    ours, theirs = both
    again = pickle.loads(pickle.dumps(ours(TEXTS)))
    assert again.data == theirs(TEXTS).data
    assert again.word_ids(1) == theirs(TEXTS).word_ids(1)


def test_any_byte_level_vocabulary_plugs_in():
    ranks = SHARED / "conformance/models/tiktoken/cl100k_base.tiktoken"
    encoding = get_encoding("cl100k_base", vocab=ranks)
    plugged = fast_tokenizer(encoding, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    assert plugged(TEXTS[1])["input_ids"] == encoding.encode(TEXTS[1])
    assert plugged.eos_token_id == encoding.eot_token
    trained = BpeTrainer(300, special_tokens=["<end>"]).train(TEXTS)
    assert fast_tokenizer(trained)(TEXTS[1])["input_ids"] == trained.encode(TEXTS[1])


def test_a_collator_takes_it():
    pytest.importorskip("torch")
    ours = fast_tokenizer(load_tokenizer(MODELS / "gpt2.json"), pad_token="<|endoftext|>")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collate = transformers.DataCollatorWithPadding(ours, return_tensors="pt")
        batch = collate([ours(text) for text in TEXTS if text])
    assert batch["input_ids"].shape == batch["attention_mask"].shape
