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


def test_inspect_answers_in_json_and_refuses_another_tokenizer(
    tmp_path, source, capsys, monkeypatch
):
    out = str(tmp_path / "out")
    assert main(["corpus", "tokenize", str(source), "-o", out, "-q"]) == 0
    capsys.readouterr()
    assert main(["corpus", "inspect", out, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["documents"], facts["options"]["dtype"]) == (2, "uint16")
    assert main(["corpus", "inspect", out, "--document", "1", "--text", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ids"], document["text"]) == ([99, 100, 101, 256], "cde<end>")
    monkeypatch.setattr("rustllm.cli.corpus.open_tokenizer", lambda choice, output: ByteTokenizer())
    assert main(["corpus", "inspect", out, "--document", "1", "--text"]) == 2
    assert "another tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_corpus_is_exported_as_a_table(tmp_path, source, capsys, form):
    parquet = pytest.importorskip("pyarrow.parquet")
    out, table = str(tmp_path / "out"), str(tmp_path / "table.parquet")
    assert main(["corpus", "tokenize", str(source), "-o", out, "-q"]) == 0
    capsys.readouterr()
    assert main(["corpus", "export", out, "-o", table, *form]) == 0
    printed = capsys.readouterr().out
    assert (json.loads(printed)["rows"] if form else printed) == (2 if form else "2 rows\n")
    assert parquet.read_table(table).num_rows == 2


def test_statistics_are_drawn_and_an_empty_corpus_has_few(tmp_path, source, capsys):
    pytest.importorskip("matplotlib")
    out, plot = str(tmp_path / "out"), tmp_path / "stats.svg"
    assert main(["corpus", "tokenize", str(source), "-o", out, "-q"]) == 0
    assert main(["corpus", "stats", out, "--plot", str(plot)]) == 0
    assert plot.read_bytes().lstrip().startswith(b"<?xml")
    (tmp_path / "none.jsonl").write_text("")
    empty = str(tmp_path / "empty")
    nothing = [str(tmp_path / "none.jsonl"), "--kind", "jsonl"]
    assert main(["corpus", "tokenize", *nothing, "-o", empty, "-q"]) == 0
    capsys.readouterr()
    assert main(["corpus", "stats", empty]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["documents", "0"]
