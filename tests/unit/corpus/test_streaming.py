"""Units done in pieces by all threads: the bytes of units that are done whole, one by one."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest
from corpus_runs import DOCUMENTS, TOKENIZER, Interrupted, digest, one_by_one, write_jsonl

import rustllm
from rustllm import corpus
from rustllm.corpus import pieces, streaming, units
from rustllm.errors import FileAccessError, FileFormatError, StateError

TEXT = "low lower lowest slow, 12 3456  ß naïve 数字 \n\n\t ok"
WORDS = TEXT.split(" ")


@pytest.fixture(scope="module")
def tokenizer():
    return rustllm.BpeTrainer(300, special_tokens=["<|endoftext|>"]).train(WORDS * 9).tokenizer


def a_text(n, seed):
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(n))


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    documents = [a_text(i * 7 % 60, i) for i in range(90)]
    (folder / "a.txt").write_text(a_text(900, 1), newline="")
    with (folder / "b.jsonl").open("w") as file:
        for i, text in enumerate(documents):
            file.write(json.dumps({"id": i, "text": text}, ensure_ascii=i % 2 == 0) + "\n")
            if i % 30 == 9:
                file.write('{"text": 3}\n\n{"text": "\\ud800"}\n')
    (folder / "c.txt").write_bytes(b"\xef\xbb\xbf" + a_text(500, 2).encode())
    (folder / "d.txt").write_text(a_text(500, 3), encoding="utf-16")
    (folder / "e.txt").write_bytes(a_text(500, 4).encode() + b"\xff" + a_text(300, 5).encode())
    (folder / "f.txt").write_text("x" * 3000)
    (folder / "g.jsonl.gz").write_bytes(gzip.compress((folder / "b.jsonl").read_bytes()))
    (folder / "h.csv").write_text("id,text\n" + "".join(f'{i},"{i} of"\n' for i in range(50)))
    (folder / "i.txt").write_text("")
    (folder / "j.txt").write_text("short")
    (folder / "k.jsonl").write_bytes(b"\xef\xbb\xbf" + (folder / "b.jsonl").read_bytes()[:-1])
    return folder


@pytest.mark.parametrize("size", [1, 100, 1000, 1 << 21])
@pytest.mark.parametrize("mode", ["threads", "inline"])
def test_pieces_give_the_bytes_of_whole_units(tmp_path, monkeypatch, inputs, tokenizer, size, mode):
    monkeypatch.setattr(pieces, "SIZE", size)
    monkeypatch.setattr(pieces, "_FARTHEST", 800)
    monkeypatch.setattr(units, "_NEAR", 300)
    options = {"on_error": "quarantine", "unit_bytes": 1500}
    corpus.tokenize([inputs], tmp_path / "whole", tokenizer, scheduler=one_by_one, **options)
    made = corpus.tokenize([inputs], tmp_path / "out", tokenizer, mode=mode, workers=3, **options)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert made.manifest["failures"] > 6
    assert corpus.verify(tmp_path / "out")


@pytest.mark.parametrize("kind", ["text", "lines"])
def test_every_text_is_cut_where_its_ids_do_not_change(tmp_path, monkeypatch, tokenizer, kind):
    monkeypatch.setattr(pieces, "SIZE", 40)
    monkeypatch.setattr(pieces, "_FARTHEST", 90)
    monkeypatch.setattr(units, "_NEAR", 30)
    draw = random.Random(5)
    alphabet = ["a", "B", " ", "  ", "\n", "\r\n", "'s", "1", "ß", "数", "\U0001f600", "."]
    alphabet.append("<|endoftext|>")
    for i in range(60):
        source = tmp_path / f"{i}.txt"
        text = "".join(draw.choice(alphabet) for _ in range(draw.randrange(400)))
        source.write_text(text, newline="")
        made = corpus.tokenize([source], tmp_path / f"out{i}", tokenizer, kind=kind)
        whole = corpus.tokenize(
            [source], tmp_path / f"whole{i}", tokenizer, kind=kind, scheduler=one_by_one
        )
        assert made.ids.tolist() == whole.ids.tolist()
        if kind == "text":
            end = tokenizer.special_tokens["<|endoftext|>"]
            assert made.ids.tolist() == [*tokenizer.encode_ordinary(text), end]


def test_what_waits_for_others_waits_on_the_disk(tmp_path, monkeypatch, inputs, tokenizer):
    monkeypatch.setattr(pieces, "SIZE", 100)
    monkeypatch.setattr(streaming, "_WAITING", 1)
    spilled = []
    spill = pieces.PieceResult.spill
    monkeypatch.setattr(
        pieces.PieceResult, "spill", lambda self: (spilled.append(self), spill(self))[1]
    )
    source = inputs / "b.jsonl"
    options = {"on_error": "quarantine", "unit_bytes": 1500}
    corpus.tokenize([source], tmp_path / "whole", tokenizer, scheduler=one_by_one, **options)
    corpus.tokenize([source], tmp_path / "out", tokenizer, workers=3, **options)
    assert spilled
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_units_behind_one_that_is_not_done_take_files(tmp_path, monkeypatch):
    """A unit that cannot be cut holds nothing up, and what is done behind it is kept."""
    (tmp_path / "in").mkdir()
    slow = tmp_path / "in/a.jsonl.gz"
    slow.write_bytes(gzip.compress(json.dumps({"text": "slow"}).encode() + b"\n"))
    write_jsonl(tmp_path / "in/b.jsonl", DOCUMENTS)
    options = {"unit_bytes": 700}
    corpus.tokenize([tmp_path / "in"], tmp_path / "clean", TOKENIZER, **options)
    out = tmp_path / "out"
    call = units.UnitRunner.__call__
    done = []

    def wait(runner, unit):
        if unit.index == 0:
            while len(done) < 8:  # as many as there are places
                pass
        return call(runner, unit)

    def stop(event):
        done.append(event["units"])
        if len(done) == 8:
            raise Interrupted

    monkeypatch.setattr(units.UnitRunner, "__call__", wait)
    with pytest.raises(Interrupted):
        corpus.tokenize([tmp_path / "in"], out, TOKENIZER, workers=2, progress=stop, **options)
    assert len(list((out / "units").glob("*.unit"))) >= 8
    monkeypatch.undo()
    events = []
    corpus.tokenize([tmp_path / "in"], out, TOKENIZER, progress=events.append, **options)
    assert events[0]["units"] >= 9
    assert digest(out) == digest(tmp_path / "clean")


def test_a_unit_that_is_not_on_the_disk_is_not_in_the_journal(tmp_path, monkeypatch):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, unit_bytes=700)
    out = tmp_path / "out"
    sync = os.fsync

    def fail(descriptor):
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).endswith(".ids.part"):
            raise OSError(5, "Input/output error")
        sync(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileAccessError):
        corpus.tokenize([source], out, TOKENIZER, unit_bytes=700)
    assert (out / "journal.jsonl").read_bytes() == b""
    monkeypatch.undo()
    corpus.tokenize([source], out, TOKENIZER, unit_bytes=700)
    assert digest(out) == digest(tmp_path / "clean")


@pytest.mark.parametrize("after", [b"", b'{"text": "new"}\n'])
def test_an_input_that_changes_under_the_pieces_is_noticed(tmp_path, monkeypatch, tokenizer, after):
    source = tmp_path / "in.txt"
    source.write_text(a_text(900, 1))
    monkeypatch.setattr(pieces, "SIZE", 500)
    work = pieces.do_piece

    def change(runner, piece):
        if piece.number == 2:
            source.write_bytes(after)
        return work(runner, piece)

    monkeypatch.setattr(streaming, "do_piece", change)
    with pytest.raises(StateError):
        corpus.tokenize([source], tmp_path / "out", tokenizer)
    assert not (tmp_path / "out/corpus.json").exists()


def test_an_error_in_a_piece_says_where(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "SIZE", 100)
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    size = source.stat().st_size
    with source.open("a") as file:
        file.write("not json\n")
    with pytest.raises(FileFormatError) as caught:
        corpus.tokenize([source], tmp_path / "out", TOKENIZER, kind="jsonl")
    assert caught.value.offset == size
