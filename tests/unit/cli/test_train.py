"""``rustllm train`` and ``rustllm convert``."""

import json
import sys

import pytest

from rustllm import BpeTrainer, load_tokenizer
from rustllm.cli import main
from rustllm.errors import ArgumentError, UnsupportedError

TEXT = "the cat sat on the mat\nthe cats sat on the mats\n" * 20


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text(TEXT.upper())


def test_train_writes_what_the_trainer_finds(capsys):
    special = ["--special", "<end>"]
    assert main(["train", "--vocab-size", "285", *special, "-o", "t.json", "a.txt", "b.txt"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "t.json: 285 tokens\n" and printed.err == ""
    expected = BpeTrainer(285, special_tokens=["<end>"]).train_files(["a.txt", "b.txt"])
    assert load_tokenizer("t.json").encode(TEXT) == expected.encode(TEXT)
    assert load_tokenizer("t.json").special_tokens["<end>"] == 0


@pytest.mark.parametrize("target", ["t.json", "t.gguf", "folder"])
def test_train_chooses_the_format(target, tmp_path):
    (tmp_path / "folder").mkdir()
    assert main(["train", "--vocab-size", "265", "-o", target, "a.txt"]) == 0
    expected = BpeTrainer(265).train_files(["a.txt"])
    assert load_tokenizer(target).encode(TEXT) == expected.encode(TEXT)


def test_ranks_for_tiktoken(tmp_path):
    assert main(["train", "--vocab-size", "265", "-o", "t.tiktoken", "a.txt"]) == 0
    BpeTrainer(265).train_files(["a.txt"]).save("u.tiktoken")
    assert (tmp_path / "t.tiktoken").read_bytes() == (tmp_path / "u.tiktoken").read_bytes()


def test_counts_of_two_machines_are_added_up(capsys):
    for name in "ab":
        command = ["train", "--count-only", "--checkpoint", f"{name}.counts", f"{name}.txt"]
        assert main(command) == 0
    parts = ["--counts", "a.counts", "--counts", "b.counts"]
    assert main(["train", "--vocab-size", "300", "-o", "parts.json", *parts]) == 0
    assert main(["train", "--vocab-size", "300", "-o", "whole.json", "a.txt", "b.txt"]) == 0
    one, other = (load_tokenizer(f"{name}.json") for name in ("parts", "whole"))
    assert one.encode(TEXT + TEXT.upper()) == other.encode(TEXT + TEXT.upper())


def test_an_interrupted_count_goes_on(capsys, tmp_path):
    command = ["train", "--count-only", "--json", "--checkpoint", "c.counts"]
    main([*command, "a.txt"])
    main([*command, "a.txt", "b.txt"])
    *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    main(["train", "--count-only", "--json", "--checkpoint", "d.counts", "a.txt", "b.txt"])
    fresh = json.loads(capsys.readouterr().out)
    assert last["distinct"] == fresh["distinct"]
    assert (tmp_path / "c.counts").read_bytes() == (tmp_path / "d.counts").read_bytes()


def test_progress_is_for_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("rustllm.cli.output._is_terminal", lambda stream: stream is sys.stderr)
    main(["train", "--vocab-size", "265", "-o", "t.json", "a.txt"])
    printed = capsys.readouterr()
    assert "265/265 tokens 100%" in printed.err and "tokens 100%" not in printed.out


def test_train_wordpiece(capsys):
    command = ["train", "--kind", "wordpiece", "--vocab-size", "60", "-o", "w.json", "a.txt"]
    assert main(command) == 0
    trained = load_tokenizer("w.json")
    assert trained.decode(trained.encode("the cats")) == "the cats"


def test_train_unigram(capsys):
    command = [
        "train",
        "--kind",
        "unigram",
        "--vocab-size",
        "60",
        "--special",
        "<s>",
        "-o",
        "u.json",
    ]
    assert main([*command, "a.txt"]) == 0
    trained = load_tokenizer("u.json")
    assert trained.special_tokens == {"<s>": 1}
    assert trained.decode(trained.encode("the cats")) == "the cats"


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_counts_of_two_machines_are_those_of_one(capsys, tmp_path, kind):
    command = ["train", "--kind", kind]
    for name in ("a", "b"):
        assert (
            main([*command, "--count-only", "--checkpoint", f"{name}.counts", f"{name}.txt"]) == 0
        )
    command += ["--vocab-size", "60", "-o"]
    counts = ["--counts", "a.counts", "--counts", "b.counts"]
    assert main([*command, "parts.json", *counts]) == 0
    assert main([*command, "whole.json", "a.txt", "b.txt"]) == 0
    assert (tmp_path / "parts.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    # stretches of text are of no use where pretokens are needed
    command = ["train", "--kind", "bpe", "--vocab-size", "300", "-o", "t.json", *counts]
    assert main(command) == ArgumentError.exit_code


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.txt"],
        ["-o", "t.json", "--vocab-size", "300"],
        ["-o", "t.json", "--vocab-size", "9", "a.txt"],
        ["-o", "t.bin", "--vocab-size", "300", "a.txt"],
        ["--count-only", "a.txt"],
        [
            "--kind",
            "unigram",
            "--min-frequency",
            "2",
            "-o",
            "t.json",
            "--vocab-size",
            "60",
            "a.txt",
        ],
    ],
)
def test_what_makes_no_sense_is_refused_before_the_work(arguments, capsys, tmp_path):
    assert main(["train", *arguments]) == ArgumentError.exit_code
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_convert(capsys, tmp_path):
    BpeTrainer(265).train_files(["a.txt"]).save("t.json")
    assert main(["convert", "t.json", "t.gguf"]) == 0
    assert capsys.readouterr().out == "t.gguf: 265 ids as gguf\n"
    assert load_tokenizer("t.gguf").encode(TEXT) == load_tokenizer("t.json").encode(TEXT)
    assert main(["convert", "t.json", "new", "--format", "vocab-merges", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "vocab-merges"
    assert main(["convert", "t.json", "t.tiktoken"]) == UnsupportedError.exit_code
    assert "kept whole" in capsys.readouterr().err
