"""Joining while others are at work: the same bytes, half the disk, and no damage goes unseen."""

import json
import logging
import os
import random
import signal
import subprocess
import sys

import pytest
from corpus_runs import DOCUMENTS, SCRIPT, TOKENIZER, Interrupted, digest, one_by_one, write_jsonl
from paths import ROOT

from rustllm import corpus
from rustllm.corpus import joining
from rustllm.corpus.unit_file import unit_path
from rustllm.errors import FileAccessError, HashMismatchError

FORMATS = ["bin", "npy", "megatron"]


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(joining, "STEP", 1)


def stopped(source, out, after, **options):
    def stop(event):
        if event["units"] == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        corpus.tokenize([source], out, TOKENIZER, mode="inline", progress=stop, **options)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.usefixtures("often")
def test_units_go_as_they_are_joined_and_the_result_is_the_same(tmp_path, format):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    options = {"unit_bytes": 700, "format": format}
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, format=format, unit_bytes=700)
    out = tmp_path / "out"
    stopped(source, out, 5, **options)
    assert not list((out / "units").iterdir())
    events = []
    corpus.tokenize([source], out, TOKENIZER, mode="inline", progress=events.append, **options)
    assert events[0]["units"] == 6
    assert digest(out) == digest(tmp_path / "clean")
    assert corpus.verify(out)


@pytest.mark.parametrize("part", [".ids.part", ".lengths.part", ".failures.part"])
@pytest.mark.parametrize("how", ["cut", "flip", "gone", "more"])
@pytest.mark.usefixtures("often")
def test_what_was_joined_is_checked_before_a_run_goes_on(tmp_path, part, how):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    with source.open("a") as file:
        file.write("not json\n" * 9)
    options = {"unit_bytes": 700, "on_error": "quarantine", "kind": "jsonl"}
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, **options)
    n_units = len(json.loads((tmp_path / "clean/plan.json").read_text())["units"])
    out = tmp_path / "out"
    stopped(source, out, n_units, **options)
    path = out / part
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "more":
        path.write_bytes(data + b"torn")
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    events = []
    corpus.tokenize([source], out, TOKENIZER, progress=events.append, **options)
    assert bool(events) == (how != "more")
    assert digest(out) == digest(tmp_path / "clean")


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
@pytest.mark.parametrize("stops", [False, True])
def test_a_unit_that_was_damaged_after_its_commit_is_done_again(tmp_path, caplog, damage, stops):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, unit_bytes=700)
    out = tmp_path / "out"

    def backwards(runner, units):
        for unit in reversed(units):  # nothing can be joined before the first
            if unit.index == 0:
                path = unit_path(out, 2)
                data = bytearray(path.read_bytes())
                data[10] ^= 4
                path.unlink()
                if damage != "gone":
                    path.write_bytes(data if damage == "flip" else data[:-3])
                if stops:
                    raise Interrupted
            yield runner(unit)

    with caplog.at_level(logging.WARNING):
        if stops:
            with pytest.raises(Interrupted):
                corpus.tokenize([source], out, TOKENIZER, unit_bytes=700, scheduler=backwards)
            corpus.tokenize([source], out, TOKENIZER, unit_bytes=700)
        else:
            corpus.tokenize([source], out, TOKENIZER, unit_bytes=700, scheduler=backwards)
    assert digest(out) == digest(tmp_path / "clean")
    told = [record for record in caplog.records if "done again" in record.getMessage()]
    assert len(told) == (damage != "gone" or not stops)  # a missing one is simply not done yet
    assert all("unit=2" in record.getMessage() for record in told)


def test_a_disk_that_damages_every_unit_is_an_error(tmp_path, monkeypatch):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    monkeypatch.setattr("rustllm.corpus.unit_file.zlib.crc32", lambda data, crc=0: id(data) % 97)
    with pytest.raises(HashMismatchError):
        corpus.tokenize([source], tmp_path / "out", TOKENIZER, unit_bytes=700, scheduler=one_by_one)


@pytest.mark.usefixtures("often")
def test_a_run_that_ended_between_its_files_and_its_manifest_is_finished(tmp_path, monkeypatch):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, unit_bytes=700)

    def fail(*_args):
        raise FileAccessError("no space left")

    monkeypatch.setattr("rustllm.corpus.driver.write_manifest", fail)
    with pytest.raises(FileAccessError):
        corpus.tokenize([source], tmp_path / "out", TOKENIZER, unit_bytes=700)
    monkeypatch.undo()
    events = []
    corpus.tokenize([source], tmp_path / "out", TOKENIZER, unit_bytes=700, progress=events.append)
    assert events == []
    assert digest(tmp_path / "out") == digest(tmp_path / "clean")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_runs_killed_while_they_join_lose_and_double_nothing(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, unit_bytes=300)
    script = "from rustllm.corpus import joining\njoining.STEP = 1\n" + SCRIPT
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    draw = random.Random(11)
    kills = 0
    while kills < 8:
        with subprocess.Popen(command, env=environment) as child:
            try:
                child.wait(draw.uniform(0.15, 0.5))
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                kills += 1
        if child.returncode == 0:
            break
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert digest(tmp_path / "out") == digest(tmp_path / "clean")
