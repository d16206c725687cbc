"""Formats are told by content."""

import bz2
import gzip
import io
import json
import pickle
import tarfile
import zipfile

import gguf_bytes as raw
import numpy as np
import pytest

from rustllm.errors import FileFormatError, FileMissingError, UnsupportedError
from rustllm.loaders.base import Loader
from rustllm.loaders.detect import FileFormat, detect_format
from rustllm.loaders.opening import open_file


def npy():
    out = io.BytesIO()
    np.save(out, np.arange(3))
    return out.getvalue()


def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", "text")
    return out.getvalue()


def tarred():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return out.getvalue()


SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
TOKENIZER = json.dumps({"version": "1.0", "added_tokens": [], "model": {}}).encode()
KINDS = {
    "empty": b"",
    "gguf": raw.small(),
    "safetensors": SAFETENSORS,
    "npy": npy(),
    "zip": zipped(),
    "tar": tarred(),
    "pickle": pickle.dumps({"a": 1}),
    "parquet": b"PAR1" + bytes(10),
    "arrow": b"ARROW1\0\0" + bytes(10),
    "pdf": b"%PDF-1.7\n",
    "binary": bytes(range(256)) * 4,
    "jsonl": b'{"a": 1}\n{"a": 2}\n',
    "json": b'{\n "a": 1\n}\n',
    "tokenizer-json": TOKENIZER,
    "tiktoken": b"IQ== 0\nIg== 1\n",
    "csv": b'id,text\n1,one\n2,"a, b"\n',
    "tsv": b"id\ttext\n1\tone\n",
    "markdown": b"# Title\n\nText.\n\n## Part\n",
    "text": b"Just a text, with commas, in one line.\nAnd another, with one.\n",
}


@pytest.mark.parametrize("kind", KINDS)
def test_content_tells_the_kind(kind, tmp_path):
    assert detect_format(KINDS[kind]).kind == kind
    path = tmp_path / "no-name"
    path.write_bytes(KINDS[kind])
    assert detect_format(path).kind == kind
    if kind not in ("empty", "binary"):
        path.write_bytes(gzip.compress(KINDS[kind]))
        assert detect_format(path)[:2] == (kind, "gzip")
        assert detect_format(bz2.compress(KINDS[kind]))[:2] == (kind, "bzip2")


@pytest.mark.parametrize("name", ["a.md", "a.md.gz", "A.MARKDOWN"])
def test_the_name_decides_between_kinds_of_text_only(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"No heading here.\n")
    assert detect_format(path).kind == "markdown"
    path.write_bytes(KINDS["gguf"])
    assert detect_format(path).kind == "gguf"


def test_a_real_sentencepiece_model_is_told(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a few words to learn from", "and some more of them"]),
        model_writer=out,
        vocab_size=20,
        minloglevel=2,
    )
    assert detect_format(out.getvalue()).kind == "sentencepiece"


def test_encodings_and_marks_are_told():
    for encoding, name, bom in (
        ("utf-8", "utf-8", 0),
        ("utf-8-sig", "utf-8", 3),
        ("utf-16", "utf-16-le", 2),
        ("utf-16-be", "utf-16-be", 0),
        ("utf-32", "utf-32-le", 4),
        ("utf-32-be", "utf-32-be", 0),
    ):
        told = detect_format("Ein Text mit Ümläuten.\n".encode(encoding))
        assert told == FileFormat("text", None, name, bom)
    assert detect_format(b"caf\xe9, and more latin-1").encoding is None


def test_a_character_that_the_peek_cuts_does_not_matter(tmp_path):
    path = tmp_path / "a"
    path.write_text("x" + "語" * 100_000)
    assert detect_format(path).encoding == "utf-8"


@pytest.mark.parametrize("kind", ["gguf", "safetensors", "npy", "binary", "jsonl", "csv", "text"])
def test_open_file_gives_what_the_content_is(kind, tmp_path):
    path = tmp_path / "no-name"
    path.write_bytes(KINDS[kind])
    with open_file(path) as file:
        assert isinstance(file, Loader)
        assert file.format.kind == kind
        assert file.path == str(path)
        if kind == "npy":
            assert file.array.tolist() == [0, 1, 2]
        if kind == "binary":
            assert file.data.tobytes() == KINDS[kind]
        if kind == "text":
            assert file.read().encode() == KINDS[kind]
            assert len(list(file)) == 2
        if kind == "csv":
            assert list(file.records())[1] == {"id": "2", "text": "a, b"}
    file.close()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("zip", UnsupportedError), ("tar", UnsupportedError), ("pickle", UnsupportedError)],
)
def test_open_file_refuses_archives_and_pickles(kind, error, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(KINDS[kind])
    with pytest.raises(error):
        open_file(path)


def test_open_file_refuses_what_is_not_there_empty_or_damaged(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(FileMissingError):
        open_file(path)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="empty"):
        open_file(path)
    path.write_bytes(npy()[:50])
    with pytest.raises(FileFormatError):
        open_file(path)
    out = io.BytesIO()
    np.save(out, np.array([object()]), allow_pickle=True)
    path.write_bytes(out.getvalue())
    with pytest.raises(FileFormatError, match="cannot be read"):
        open_file(path)
    path.write_bytes(gzip.compress(KINDS["gguf"]))
    with pytest.raises(UnsupportedError, match="decompress"):
        open_file(path)


def test_parquet_and_arrow_need_pyarrow_and_are_read_by_it(tmp_path, monkeypatch):
    import sys

    from rustllm.errors import MissingDependencyError

    path = tmp_path / "a"
    path.write_bytes(KINDS["parquet"])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingDependencyError):
            open_file(path)
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"text": ["a", "b"], "n": [1, 2]})
    pq.write_table(table, path)
    assert list(open_file(path).records(["text"])) == [{"text": "a"}, {"text": "b"}]
    with pa.ipc.new_file(str(path), table.schema) as out:
        out.write_table(table)
    assert [row["n"] for row in open_file(path).records()] == [1, 2]
    path.write_bytes(KINDS["parquet"])
    with pytest.raises(FileFormatError):
        list(open_file(path).records())
