"""A corpus out of archives: the documents that their files would give."""

import gzip
import io
import json
import tarfile
import zipfile

import pytest
from corpus_runs import TOKENIZER, digest, one_by_one

from rustllm import corpus
from rustllm.errors import FileFormatError, RustLLMError, StateError

FILES = {
    "b.txt": b"one text\nof two lines",
    "a.jsonl": b'{"text": "first"}\n{"text": "second"}\n',
    "c.csv": b"id,text\n1,third\n",
    "d.json": b'[{"text": "fourth"}]',
    "e.jsonl.gz": gzip.compress(b'{"text": "fifth"}\n'),
    "f.txt": "sixth ß".encode("utf-16"),
    "empty.txt": b"",
}
DOCUMENTS = ["one text\nof two lines", "first", "second", "third", "fourth", "fifth", "sixth ß", ""]


def a_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def a_tar(path, files):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as out:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
    path.write_bytes(gzip.compress(held.getvalue()))
    return path


def texts(made):
    return [bytes(ids[:-1].astype("u1")).decode() for ids in made]


@pytest.mark.parametrize("make", [a_zip, a_tar])
def test_members_are_documents_in_their_order(tmp_path, make):
    source = make(tmp_path / "in", FILES)
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER, walk_archives=True)
    assert texts(made) == DOCUMENTS
    corpus.tokenize(
        [source], tmp_path / "other", TOKENIZER, walk_archives=True, scheduler=one_by_one
    )
    assert digest(tmp_path / "out") == digest(tmp_path / "other")
    with pytest.raises(StateError):  # it decides what comes out
        corpus.tokenize([source], tmp_path / "out", TOKENIZER, walk_archives=True, kind="lines")
    lines = corpus.tokenize(
        [make(tmp_path / "texts", {"a": b"x\ny\n", "b": b"z"})],
        tmp_path / "lines", TOKENIZER, walk_archives=True, kind="lines",
    )  # fmt: skip
    assert texts(lines) == ["x", "y", "z"]


@pytest.mark.parametrize("make", [a_zip, a_tar])
def test_an_archive_is_refused_unless_it_is_asked_for(tmp_path, make):
    source = make(tmp_path / "in", FILES)
    with pytest.raises(FileFormatError, match="walk"):
        corpus.tokenize([source], tmp_path / "out", TOKENIZER)


@pytest.mark.parametrize("make", [a_zip, a_tar])
def test_a_member_that_cannot_be_read_fails_alone(tmp_path, make):
    files = {"a.txt": b"one", "x.png": b"\x89PNG\r\n\x1a\n" + bytes(90), "b.txt": b"two"}
    files["c.zip"] = a_zip(tmp_path / "inner", {"x": b"nested"}).read_bytes()
    source = make(tmp_path / "in", files)
    with pytest.raises(RustLLMError):
        corpus.tokenize([source], tmp_path / "raise", TOKENIZER, walk_archives=True)
    made = corpus.tokenize(
        [source], tmp_path / "out", TOKENIZER, walk_archives=True, on_error="quarantine"
    )
    assert texts(made) == ["one", "two"]
    failed = [json.loads(line) for line in (tmp_path / "out/failed.jsonl").read_text().splitlines()]
    assert [(one["path"], one["offset"]) for one in failed] == [
        (f"{source}/x.png", 1), (f"{source}/c.zip", 3),
    ]  # fmt: skip


def test_a_damaged_archive_keeps_what_came_before(tmp_path):
    source = a_tar(tmp_path / "in", {"a.txt": b"one", "b.txt": b"x" * 5000})
    source.write_bytes(gzip.compress(gzip.decompress(source.read_bytes())[:2000]))
    made = corpus.tokenize(
        [source], tmp_path / "out", TOKENIZER, walk_archives=True, on_error="skip"
    )
    assert texts(made) == ["one"]
    assert made.manifest["failures"] >= 1
