"""``rustllm corpus``: what goes to which stream, and with which status."""

import json

import pytest

from rustllm.cli import main
from rustllm.testing import ByteTokenizer


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(
        "rustllm.cli.corpus.open_tokenizer", lambda choice, output: ByteTokenizer(["<end>"])
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "ab"}\n{"text": "cde"}\n')
    return path


def test_a_corpus_is_made_checked_and_described(tmp_path, source, capsys):
    out = str(tmp_path / "out")
    assert main(["corpus", "tokenize", str(source), "-o", out]) == 0
    printed = capsys.readouterr()
    assert printed.out == "2 documents, 7 tokens\n"
    assert printed.err == ""
    assert main(["corpus", "verify", out]) == 0
    assert capsys.readouterr().out.startswith("whole: 2 documents, 7 tokens")
    assert main(["corpus", "stats", out]) == 0
    assert "bytes a token    0.714" in capsys.readouterr().out


def test_json_documents_and_events(tmp_path, source, capsys):
    out = str(tmp_path / "out")
    assert main(["corpus", "tokenize", str(source), "-o", out, "--json", "--events"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["tokens"] == 7
    event = json.loads(printed.err)
    assert (event["units"], event["units_total"], event["tokens"]) == (1, 1, 7)
    for action in ("verify", "stats"):
        assert main(["corpus", action, out, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == f"rustllm.corpus.{action}"
        assert document["tokens"] == 7


def test_mistakes_have_their_status(tmp_path, source, capsys):
    out = str(tmp_path / "out")
    assert main(["corpus", "tokenize", str(source)]) == 2
    assert main(["corpus", "verify", out]) == 3
    assert main(["corpus", "verify", out, out]) == 2
    assert main(["corpus", "tokenize", str(source), "-o", out]) == 0
    (tmp_path / "out/tokens.bin").write_bytes(b"changed")
    assert main(["corpus", "verify", out]) == 4
    assert "tokens.bin" in capsys.readouterr().err


def test_a_corpus_is_derived_merged_inspected_and_exported(tmp_path, source, capsys):
    out = str(tmp_path / "out")
    assert main(["corpus", "tokenize", str(source), "-o", out]) == 0
    assert main(["corpus", "inspect", out]) == 0
    assert "options format           bin" in capsys.readouterr().out
    assert main(["corpus", "inspect", out, "--document", "1"]) == 0
    assert capsys.readouterr().out == "99 100 101 256\n"
    assert main(["corpus", "inspect", out, "--document", "1", "--text"]) == 0
    assert capsys.readouterr().out == "cde<end>\n"
    halves = ["--split", "a=0.5", "--split", "b=0.5"]
    assert main(["corpus", "derive", out, "-o", str(tmp_path / "s"), *halves]) == 0
    assert [line[:14] for line in capsys.readouterr().out.splitlines()] == [
        "a: 1 documents", "b: 1 documents",
    ]  # fmt: skip
    parts = [str(tmp_path / "s" / name) for name in "ab"]
    assert main(["corpus", "merge", *parts, "-o", str(tmp_path / "m"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 2
    packed = ["-o", str(tmp_path / "p"), "--window", "3", "--json"]
    assert main(["corpus", "derive", out, *packed]) == 0
    assert json.loads(capsys.readouterr().out)["corpora"][""]["tokens"] == 6
    assert main(["corpus", "derive", out, "-o", str(tmp_path / "x"), "--split", "a"]) == 2
    assert "no split" in capsys.readouterr().err
    assert main(["corpus", "merge", out]) == 2
    assert "--output" in capsys.readouterr().err
