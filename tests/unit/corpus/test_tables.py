"""Tables in and out, and statistics drawn."""

import importlib.util
import json

import numpy as np
import pytest

from rustllm import corpus
from rustllm.errors import ArgumentError, FileFormatError
from rustllm.testing import ByteTokenizer

TEXTS = ["one", "two\nlines, and a comma", "", "drei “Wörter”"]
TOKENIZER = ByteTokenizer(["<end>"])


def documents(c):
    return [bytes(id for id in c[i].tolist() if id < 256).decode() for i in range(len(c))]


def write(path, texts):
    if path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "text"])
            rows.writerows([str(i), t] for i, t in enumerate(texts))
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"text": t, "id": i} for i, t in enumerate(texts)]))
    else:
        pa = pytest.importorskip("pyarrow")
        table = pa.table({"id": range(len(texts)), "text": texts})
        if path.suffix == ".parquet":
            pytest.importorskip("pyarrow.parquet").write_table(table, path)
        else:
            with pa.ipc.new_file(str(path), table.schema) as file:
                file.write_table(table)
    return path


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet", "arrow"])
def test_records_of_every_kind_become_documents(tmp_path, suffix):
    source = write(tmp_path / f"in.{suffix}", TEXTS)
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER)
    assert documents(made) == TEXTS
    assert made.manifest["inputs"][0]["kind"] == suffix


@pytest.mark.parametrize("suffix", ["json", "parquet", "arrow"])
def test_rows_without_text_are_told_by_their_number(tmp_path, suffix):
    source = write(tmp_path / f"in.{suffix}", ["a", None, "b"])
    with pytest.raises(FileFormatError, match="no text under 'text'") as caught:
        corpus.tokenize([source], tmp_path / "out", TOKENIZER)
    assert caught.value.row == 1
    made = corpus.tokenize([source], tmp_path / "skip", TOKENIZER, on_error="quarantine")
    assert documents(made) == ["a", "b"]
    (failure,) = (tmp_path / "skip/failed.jsonl").read_text().splitlines()
    assert json.loads(failure)["offset"] == 1
    with pytest.raises(FileFormatError, match="other"):
        corpus.tokenize([source], tmp_path / "field", TOKENIZER, field="other")


def test_a_table_that_ends_too_early_is_one_failure(tmp_path):
    source = write(tmp_path / "in.json", TEXTS)
    source.write_text(source.read_text()[:-5])
    with pytest.raises(FileFormatError):
        corpus.tokenize([source], tmp_path / "out", TOKENIZER, kind="json")


@pytest.mark.parametrize("suffix", ["arrow", "feather", "parquet"])
def test_a_corpus_is_a_table_for_others(tmp_path, suffix):
    pa = pytest.importorskip("pyarrow")
    source = write(tmp_path / "in.json", [*TEXTS, "x" * 5000])
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER)
    path = tmp_path / f"made.{suffix}"
    assert corpus.export_table(made, path) == 5
    if suffix == "parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
    else:
        table = pa.ipc.open_file(path).read_all()
    rows = table.column("input_ids").to_pylist()
    assert rows == [made[i].tolist() for i in range(5)]
    assert table.schema.field("input_ids").type.value_type == pa.uint16()
    corpus.export_table(tmp_path / "out", tmp_path / f"again.{suffix}", column="ids")
    with pytest.raises(ArgumentError, match="neither"):
        corpus.export_table(made, tmp_path / "made.csv")


def test_batches_of_a_table_join_without_a_seam(tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    texts = ["y" * n for n in np.random.default_rng(0).integers(0, 90, 500).tolist()]
    made = corpus.tokenize([write(tmp_path / "in.json", texts)], tmp_path / "out", TOKENIZER)
    monkeypatch.setattr("rustllm.corpus.table._ROWS", 33)
    monkeypatch.setattr("rustllm.corpus.table._IDS", 500)
    assert corpus.export_table(made, tmp_path / "made.parquet") == 500
    rows = pq.read_table(tmp_path / "made.parquet").column(0).to_pylist()
    assert rows == [made[i].tolist() for i in range(500)]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="no matplotlib")
@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
@pytest.mark.filterwarnings("ignore")
def test_statistics_are_drawn_the_same_twice(tmp_path, suffix):
    source = write(tmp_path / "in.json", TEXTS)
    facts = corpus.stats(corpus.tokenize([source], tmp_path / "out", TOKENIZER).folder)
    first, second = (tmp_path / f"{n}.{suffix}" for n in "ab")
    corpus.draw_stats(facts, first)
    corpus.draw_stats(facts, second)
    assert first.read_bytes() == second.read_bytes() and first.stat().st_size > 2000
    if suffix == "html":
        page = first.read_text("utf-8")
        assert "in.json" in page and "http" not in page.split("</style>")[0]
    with pytest.raises(ArgumentError, match="neither"):
        corpus.draw_stats(facts, tmp_path / "a.gif")
