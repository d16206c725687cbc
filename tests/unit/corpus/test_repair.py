"""A damaged corpus is made whole again, by doing what is damaged and nothing else."""

import json

import pytest
from corpus_runs import DOCUMENTS, TOKENIZER, digest, write_jsonl

from rustllm import cli, corpus
from rustllm.corpus.units import UnitRunner
from rustllm.errors import FileMissingError, HashMismatchError, RustLLMError, StateError
from rustllm.testing import ByteTokenizer


@pytest.fixture
def redone(monkeypatch):
    done = []
    call = UnitRunner.__call__

    def watch(runner, unit):
        done.append(unit.index)
        return call(runner, unit)

    monkeypatch.setattr(UnitRunner, "__call__", watch)
    return done


def make(tmp_path, format="bin"):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    with source.open("a") as file:
        file.write('{"text": 1}\n' * 9)
    out = tmp_path / "out"
    corpus.tokenize(
        [source], out, TOKENIZER, format=format, unit_bytes=700, on_error="quarantine",
        kind="jsonl",
    )  # fmt: skip
    return out


@pytest.mark.parametrize("how", ["flip", "cut", "gone", "more", "zeros"])
@pytest.mark.parametrize("format", ["bin", "npy", "megatron"])
def test_every_file_is_made_whole(tmp_path, redone, format, how):
    out = make(tmp_path, format)
    before = digest(out)
    n_units = len(json.loads((out / "plan.json").read_text())["units"])
    for name in json.loads((out / "corpus.json").read_text())["files"]:
        path = out / name
        data = bytearray(path.read_bytes())
        if how == "gone":
            path.unlink()
        elif how == "more":
            path.write_bytes(data + b"more")
        elif how == "cut":
            path.write_bytes(data[: len(data) * 3 // 4])
        elif how == "flip":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        else:
            path.write_bytes(bytes(len(data)))
        with pytest.raises((RustLLMError, ValueError)):
            corpus.verify(out)
        redone.clear()
        facts = corpus.repair(out, TOKENIZER)
        assert facts["files"] == [name]
        assert facts["units"] == len(redone)
        if how == "flip" and name != "units.jsonl" and not name.endswith(".idx"):
            assert len(redone) == 1
        if how == "more" and name != "units.jsonl":
            assert not redone
        assert len(redone) <= n_units
        assert digest(out) == before
        assert corpus.verify(out)
    assert corpus.repair(out, TOKENIZER) == {"units": 0, "files": []}


def test_heads_are_mended_without_a_unit(tmp_path, redone):
    out = make(tmp_path, "npy")
    before = digest(out)
    for name in ("tokens.npy", "lengths.npy"):
        data = bytearray((out / name).read_bytes())
        data[70] ^= 1
        (out / name).write_bytes(data)
    assert corpus.repair(out, TOKENIZER) == {"units": 0, "files": ["lengths.npy", "tokens.npy"]}
    assert not redone
    assert digest(out) == before


def test_what_cannot_be_mended_is_said(tmp_path):
    out = make(tmp_path)
    (out / "tokens.bin").write_bytes(bytes((out / "tokens.bin").stat().st_size))
    with pytest.raises(StateError, match="tokenizer"):
        corpus.repair(out, ByteTokenizer(["<end>", "<pad>"]))
    derived = tmp_path / "derived"
    with pytest.raises(StateError, match="derived"):
        corpus.derive(make_whole(tmp_path), derived, shuffle=1)
        corpus.repair(derived, TOKENIZER)
    (out / "plan.json").rename(tmp_path / "plan.json")
    with pytest.raises(FileMissingError):
        corpus.repair(out, TOKENIZER)
    (tmp_path / "plan.json").rename(out / "plan.json")
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write('{"text": "new"}\n')
    with pytest.raises(StateError, match="changed"):
        corpus.repair(out, TOKENIZER)


def make_whole(tmp_path):
    source = write_jsonl(tmp_path / "whole.jsonl", DOCUMENTS[:5])
    return corpus.tokenize([source], tmp_path / "whole", TOKENIZER)


def test_an_interrupted_repair_is_called_again(tmp_path, monkeypatch):
    out = make(tmp_path)
    before = digest(out)
    data = bytearray((out / "tokens.bin").read_bytes())
    for at in (10, len(data) // 2, len(data) - 10):
        data[at] ^= 1
    (out / "tokens.bin").write_bytes(data)
    call = UnitRunner.__call__

    def fail(runner, unit):
        if unit.index:
            raise OSError(28, "No space left on device")
        return call(runner, unit)

    monkeypatch.setattr(UnitRunner, "__call__", fail)
    with pytest.raises(OSError, match="space"):
        corpus.repair(out, TOKENIZER)
    monkeypatch.undo()
    assert corpus.repair(out, TOKENIZER)["units"] == 3
    assert digest(out) == before


def test_the_command_says_what_to_do_and_does_it(tmp_path, capsys):
    import rustllm

    enc = rustllm.BpeTrainer(270).train(["low lower"]).tokenizer
    enc.save(tmp_path / "tokenizer.json")
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS[:9])
    out = tmp_path / "out"
    vocabulary = rustllm.load_tokenizer(tmp_path / "tokenizer.json")
    corpus.tokenize([source], out, vocabulary)
    data = bytearray((out / "tokens.bin").read_bytes())
    data[4] ^= 1
    (out / "tokens.bin").write_bytes(data)
    with pytest.raises(HashMismatchError, match="--repair"):
        corpus.verify(out)
    command = ["corpus", "verify", str(out), "--repair", "-t", str(tmp_path / "tokenizer.json")]
    assert cli.main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["repaired_units"], told["repaired_files"]) == (1, ["tokens.bin"])
    assert cli.main(command) == 0
    assert "whole" in capsys.readouterr().out
