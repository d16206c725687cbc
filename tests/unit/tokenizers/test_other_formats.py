"""vocab.json with merges.txt, and tekken.json: the same tokenizers in other clothes."""

import base64
import json

import pytest
from paths import SHARED, needs_shared

from rustllm._core.split import EXPRESSIONS
from rustllm.errors import FileFormatError, FileMissingError, UnsupportedError
from rustllm.tokenizers.load import load_tokenizer
from rustllm.tokenizers.trainer import BpeTrainer

TEXT = "So it goes, naïve 日本 and 12345 more. "


@needs_shared
def test_two_files_give_what_gpt2_s_one_file_gives(tmp_path):
    path = SHARED / "conformance/models/tokenizers/gpt2.json"
    model = json.loads(path.read_bytes())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    text = "#version: 0.2\n" + "\n".join(merges) + "\n"
    (tmp_path / "merges.txt").write_text(text, encoding="utf-8")
    whole = load_tokenizer(path)
    for tokenizer in (load_tokenizer(tmp_path), load_tokenizer(tmp_path / "vocab.json")):
        assert dict(tokenizer.special_tokens) == {"<|endoftext|>": 50256}
        assert tokenizer.encode(TEXT) == whole.encode(TEXT)
        assert tokenizer.encode("a<|endoftext|>", allowed_special="all") == [64, 50256]


def test_what_a_trainer_saves_is_loaded_again(tmp_path):
    trained = BpeTrainer(400, special_tokens=["<s>"]).train([TEXT * 5])
    ids = trained.encode(TEXT)
    trained.save(tmp_path)
    assert load_tokenizer(tmp_path / "vocab.json").encode(TEXT) == ids
    trained.save(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path / "tokenizer.json").encode(TEXT) == ids
    assert trained.decode(ids) == TEXT and trained.count(TEXT) == len(ids)
    assert trained.as_hf().encode(TEXT).ids == ids
    with pytest.raises(AttributeError):
        trained.no_such_method()
    with pytest.raises(UnsupportedError):
        BpeTrainer(300, None).train([TEXT]).encode(TEXT)


def test_broken_pairs_of_files_are_refused(tmp_path):
    trained = BpeTrainer(300).train([TEXT])
    trained.save(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    merges = tmp_path / "merges.txt"
    good = merges.read_bytes()
    for bad in (b"a\n", b"a b c\n", b"\xff\n", b"zz qq\n"):
        merges.write_bytes(bad)
        with pytest.raises(FileFormatError):
            load_tokenizer(tmp_path / "vocab.json")
    merges.unlink()
    with pytest.raises(FileMissingError):
        load_tokenizer(tmp_path / "vocab.json")
    merges.write_bytes(good)
    del vocab["a"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    with pytest.raises(UnsupportedError):
        load_tokenizer(tmp_path / "vocab.json")


def tekken_file(n_special=4, **changes):
    trained = BpeTrainer(380, "tekken").train([TEXT * 5])
    tokens = [bytes([byte]) for byte in range(256)] + trained.token_bytes()[256:]
    return {
        "config": {
            "pattern": EXPRESSIONS["tekken"][0],
            "num_vocab_tokens": len(tokens),
            "default_vocab_size": len(tokens) + n_special - 10,
            "default_num_special_tokens": n_special,
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for rank, token in enumerate(tokens)
        ],
        "special_tokens": [
            {"rank": 0, "token_str": "<unk>", "is_control": True},
            {"rank": 1, "token_str": "<s>", "is_control": True},
        ],
        **changes,
    }


def test_tekken_ids_are_ranks_behind_the_special_tokens(tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    content = tekken_file()
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    tokenizer = load_tokenizer(path)
    ranks = {base64.b64decode(e["token_bytes"]): e["rank"] for e in content["vocab"][:-10]}
    peer = tiktoken.Encoding(
        "tekken", pat_str=content["config"]["pattern"], mergeable_ranks=ranks, special_tokens={}
    )
    ids = tokenizer.encode(TEXT)
    assert ids == [rank + 4 for rank in peer.encode(TEXT)]
    assert tokenizer.decode(ids) == TEXT
    assert dict(tokenizer.special_tokens) == {
        "<unk>": 0, "<s>": 1, "<SPECIAL_2>": 2, "<SPECIAL_3>": 3,
    }  # fmt: skip
    assert tokenizer.n_vocab == content["config"]["default_vocab_size"]
    assert tokenizer.bos_id == 1 and tokenizer.eos_id is None


def test_broken_tekken_files_are_refused(tmp_path):
    path = tmp_path / "tekken.json"

    def refused(content, error=FileFormatError):
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(error):
            load_tokenizer(path)

    refused(tekken_file(config={}))
    refused(tekken_file(vocab=[]))
    refused(tekken_file(special_tokens=[{"rank": 9, "token_str": "x"}]))
    refused(tekken_file(special_tokens=[{"rank": 0}]))
    refused(tekken_file(special_tokens=[{"rank": 0, "token_str": "<SPECIAL_1>"}]))
    for change in ({"rank": 7}, {"token_bytes": "!"}, {"token_bytes": ""}, {"token_bytes": None}):
        content = tekken_file()
        content["vocab"][5].update(change)
        refused(content)
    content = tekken_file()
    content["vocab"][5]["token_bytes"] = content["vocab"][6]["token_bytes"]
    refused(content)
    content = tekken_file()
    content["config"]["default_num_special_tokens"] = -1
    refused(content)
    content = tekken_file()
    content["config"]["pattern"] = "x("
    refused(content)
