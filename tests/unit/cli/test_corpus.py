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
