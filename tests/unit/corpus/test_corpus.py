"""A corpus is the same bytes however it came about, and readable by those it is written for."""

import errno
import gzip
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from corpus_runs import (
    DOCUMENTS,
    END,
    SCRIPT,
    TOKENIZER,
    Interrupted,
    digest,
    flat,
    one_by_one,
    write_jsonl,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT

from rustllm import corpus
from rustllm.corpus.journal import Journal
from rustllm.corpus.plan import Plan
from rustllm.errors import (
    ArgumentError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    HashMismatchError,
    RustLLMError,
    StateError,
    TruncatedFileError,
)
from rustllm.testing import ByteTokenizer


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=15),
    unit_bytes=st.integers(1, 200),
    newline=st.sampled_from(["\n", "\r\n"]),
    final=st.booleans(),
)
def test_units_of_any_size_give_every_document_once_in_order(
    tmp_path_factory, documents, unit_bytes, newline, final
):
    folder = tmp_path_factory.mktemp("corpus")
    text = newline.join(json.dumps({"text": d}) for d in documents)
    source = folder / "in.jsonl"
    source.write_bytes((text + (newline if final else "")).encode())
    made = corpus.tokenize(
        [source], folder / "out", TOKENIZER, kind="jsonl", unit_bytes=unit_bytes, mode="inline"
    )
    assert made.ids.tolist() == flat(documents)
    assert [d.tolist() for d in made] == [[*d.encode(), END] for d in documents]


def test_the_output_depends_neither_on_workers_nor_on_their_kind(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    digests = []
    for i, options in enumerate(
        [{"mode": "inline"}, {"workers": 4}, {"workers": 2, "mode": "processes"}]
    ):
        out = tmp_path / f"out{i}"
        corpus.tokenize([source], out, TOKENIZER, unit_bytes=700, **options)
        digests.append(digest(out))
    assert digests[0] == digests[1] == digests[2]
    assert set(digests[0]) == {
        "plan.json",
        "corpus.json",
        "tokens.bin",
        "lengths.npy",
        "units.jsonl",
    }


def test_kinds_of_input_are_told_by_content_and_mixed(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", ["one", "two"])
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbfa whole\nfile")
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three"}\n{"text": "four"}\n'))
    made = corpus.tokenize([folder], tmp_path / "out", TOKENIZER, unit_bytes=5)
    assert made.ids.tolist() == flat(["one", "two", "a whole\nfile", "three", "four"])
    lines = corpus.tokenize([folder / "b.txt"], tmp_path / "lines", TOKENIZER, kind="lines")
    assert lines.ids.tolist() == flat(["a whole", "file"])


def test_bare_ids_are_what_nanogpt_reads(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    corpus.tokenize([source], tmp_path / "out", TOKENIZER)
    ids = np.memmap(tmp_path / "out/tokens.bin", dtype=np.uint16, mode="r")
    assert ids.tolist() == flat(DOCUMENTS)
    npy = corpus.tokenize([source], tmp_path / "npy", TOKENIZER, format="npy", dtype="uint32")
    array = np.load(tmp_path / "npy/tokens.npy")
    assert array.dtype == np.uint32
    assert array.tolist() == npy.ids.tolist() == flat(DOCUMENTS)


def test_the_megatron_index_is_what_its_reader_expects(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", ["ab", "", "cde"])
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER, format="megatron")
    data = (tmp_path / "out/tokens.idx").read_bytes()
    expected = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 3, 4)
    expected += struct.pack("<3i", 3, 1, 4) + struct.pack("<3q", 0, 6, 8)
    expected += struct.pack("<4q", 0, 1, 2, 3)
    assert data == expected
    assert [d.tolist() for d in made] == [[97, 98, END], [END], [99, 100, 101, END]]


def test_no_end_token_when_none_is_wanted(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", ["ab", "c"])
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER, end_token=None)
    assert made.ids.tolist() == [97, 98, 99]
    plain = corpus.tokenize([source], tmp_path / "plain", ByteTokenizer())
    assert plain.ids.tolist() == [97, 98, 99]
    named = corpus.tokenize([source], tmp_path / "named", TOKENIZER, end_token="<end>")
    assert named.ids.tolist() == [97, 98, END, 99, END]


def bad_source(folder):
    source = folder / "in.jsonl"
    source.write_bytes(b'{"text": "a"}\n{"text": 3}\nnot json\n\xff\n{"text": "b"}\n{"t": ""}\n')
    return source


def test_bad_records_raise_are_skipped_or_listed(tmp_path):
    source = bad_source(tmp_path)
    with pytest.raises(FileFormatError) as caught:
        corpus.tokenize([source], tmp_path / "raise", TOKENIZER, kind="jsonl", mode="inline")
    assert (caught.value.path, caught.value.offset) == (str(source), 14)
    for on_error in ("skip", "quarantine"):
        out = tmp_path / on_error
        made = corpus.tokenize(
            [source], out, TOKENIZER, kind="jsonl", on_error=on_error, unit_bytes=9
        )
        assert made.ids.tolist() == flat(["a", "b"])
        assert made.manifest["failures"] == 4
    failed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert [f["offset"] for f in failed] == [14, 26, 35, 51]
    assert all(f["path"] == str(source) and f["message"] for f in failed)
    assert not (tmp_path / "skip/failed.jsonl").exists()


def test_lines_that_only_python_reads_are_documents_in_their_place(tmp_path):
    source = tmp_path / "in.jsonl"
    lines = ['{"text": "a"}', '{"te\\u0078t": "b"}', '{"text": 1, "text": "ć"}', '{"text": "d"}']
    source.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER, kind="jsonl", unit_bytes=20)
    assert made.ids.tolist() == flat(["a", "b", "ć", "d"])


def test_half_of_a_surrogate_pair_is_what_the_tokenizer_makes_of_it(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n{"text": "\\ud800"}\n{"text": "b"}\n')
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER, kind="jsonl")
    assert made.ids.tolist() == flat(["a", "\ufffd", "b"])


@pytest.mark.parametrize("after", [1, 3, 7])
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bytes(tmp_path, after):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    options = {"unit_bytes": 500, "workers": 2}
    clean = []
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, progress=clean.append, **options)
    done = []

    def stop(event):
        done.append(event["units"])
        if len(done) == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        corpus.tokenize([source], tmp_path / "out", TOKENIZER, progress=stop, **options)
    events = []
    corpus.tokenize([source], tmp_path / "out", TOKENIZER, progress=events.append, **options)
    # What was done is not done again; workers may have been ahead of what was counted.
    assert len(events) <= len(clean) - after
    assert digest(tmp_path / "out") == digest(tmp_path / "clean")
    again = []
    corpus.tokenize([source], tmp_path / "out", TOKENIZER, progress=again.append, **options)
    assert again == []


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_runs_killed_at_random_moments_lose_and_double_nothing(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, unit_bytes=300)
    draw = random.Random(7)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "out")]
    kills = 0
    for _ in range(200):
        with subprocess.Popen(command, env=environment) as child:
            try:
                child.wait(draw.uniform(0.1, 0.4))
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                kills += 1
        if child.returncode == 0:
            assert digest(tmp_path / "out") == digest(tmp_path / "clean")
            shutil.rmtree(tmp_path / "out")  # and once more from nothing
        if kills == 20:
            break
    assert kills == 20
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert digest(tmp_path / "out") == digest(tmp_path / "clean")


def unfinished(tmp_path, n=4, **how):
    """Return a folder with `n` units done and the options to go on with."""
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    options = {"unit_bytes": 900, "mode": "inline"}

    def stop(event):
        if event["units"] == n:
            raise Interrupted

    with pytest.raises(Interrupted):
        corpus.tokenize([source], tmp_path / "out", TOKENIZER, progress=stop, **options, **how)
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, **options)
    return source, options


def test_a_journal_cut_at_any_byte_of_its_last_record_is_mended(tmp_path):
    source, options = unfinished(tmp_path)
    path = tmp_path / "out/journal.jsonl"
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for n in [*range(last, len(whole)), 0]:
        path.write_bytes(whole[:n])
        journal = Journal(path)
        assert len(journal.entries) == (3 if n else 0)
        journal.close()
        assert path.read_bytes() == (whole[:last] if n else b"")
    path.unlink()
    corpus.tokenize([source], tmp_path / "out", TOKENIZER, **options)
    assert digest(tmp_path / "out") == digest(tmp_path / "clean")


def test_torn_units_and_leftovers_are_done_again(tmp_path):
    source, options = unfinished(tmp_path, scheduler=one_by_one)
    (tmp_path / "out/journal.jsonl").unlink()
    units = sorted((tmp_path / "out/units").iterdir())
    units[0].write_bytes(units[0].read_bytes()[:-5])
    units[1].write_bytes(units[2].read_bytes())
    (tmp_path / "out/units/.00000003.rllm.abc.tmp").write_bytes(b"torn")
    (tmp_path / "out/.tokens.bin.abc.tmp").write_bytes(b"torn")
    corpus.tokenize([source], tmp_path / "out", TOKENIZER, **options)
    assert digest(tmp_path / "out") == digest(tmp_path / "clean")


def test_what_changed_is_named_and_nothing_is_resumed(tmp_path):
    source, options = unfinished(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(StateError, match="tokenizer"):
        corpus.tokenize([source], out, ByteTokenizer(["<end>", "<pad>"]), **options)
    with pytest.raises(StateError, match="options"):
        corpus.tokenize([source], out, TOKENIZER, **options, field="body")
    with pytest.raises(StateError, match="units"):
        corpus.tokenize([source], out, TOKENIZER, mode="inline", unit_bytes=901)
    with source.open("a") as file:
        file.write('{"text": "new"}\n')
    with pytest.raises(StateError, match=r"in\.jsonl"):
        corpus.tokenize([source], out, TOKENIZER, **options)


def test_an_input_that_changes_while_it_is_read_is_noticed(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)

    def change(event):
        os.utime(source, ns=(1, 1))

    with pytest.raises(StateError, match="changed"):
        corpus.tokenize(
            [source], tmp_path / "out", TOKENIZER, unit_bytes=500, mode="inline", progress=change
        )


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_second_process_is_refused(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    inner = []

    def again(event):
        try:
            corpus.tokenize([source], tmp_path / "out", TOKENIZER, unit_bytes=500)
        except StateError as error:
            inner.append(error)

    corpus.tokenize([source], tmp_path / "out", TOKENIZER, unit_bytes=500, progress=again)
    assert inner
    assert "another process" in str(inner[0])


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE")
def test_a_full_disk_is_an_error_and_the_run_goes_on_later(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, unit_bytes=300)
    script = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3500, 3500))\n" + SCRIPT
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(source), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert "FileAccessError" in result.stderr
    assert not list(tmp_path.glob("out/**/.*.tmp"))
    corpus.tokenize([source], tmp_path / "out", TOKENIZER, unit_bytes=300)
    assert digest(tmp_path / "out") == digest(tmp_path / "clean")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("mode", ["threads", "inline", "processes"])
def test_a_file_system_of_two_megabytes_fills_and_nothing_is_lost(tmp_path, small_disk, mode):
    source = write_jsonl(tmp_path / "in.jsonl", ["word " * 2000] * 150)  # 3 MB of ids
    options = {"unit_bytes": 50_000, "workers": 2}
    corpus.tokenize([source], tmp_path / "clean", TOKENIZER, **options)
    out = small_disk / "out"
    for _ in range(2):  # the second goes on from what fits, and finds the disk full again
        with pytest.raises(FileAccessError) as caught:
            corpus.tokenize([source], out, TOKENIZER, mode=mode, **options)
        assert caught.value.errno == errno.ENOSPC
    assert not list(small_disk.glob("out/**/.*.tmp"))
    journal = Journal(out / "journal.jsonl")
    journal.close()
    kept = sum(entry["size"]["ids"] for entry in journal.entries.values())
    assert kept > 300_000
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    events = []
    corpus.tokenize([source], out, TOKENIZER, mode=mode, progress=events.append, **options)
    assert events[0]["units"] > len(journal.entries) // 2
    assert digest(out) == digest(tmp_path / "clean")
    shutil.rmtree(out)


@pytest.mark.parametrize("format", ["bin", "npy", "megatron"])
def test_verify_finds_any_change(tmp_path, format):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS[:5])
    out = tmp_path / "out"
    made = corpus.tokenize([source], out, TOKENIZER, format=format)
    facts = corpus.verify(out)
    assert facts["tokens"] == len(made.ids) == len(flat(DOCUMENTS[:5]))
    assert facts["documents"] == 5
    for path in sorted(out.iterdir()):
        if path.name in (".lock", "plan.json"):
            continue
        whole = path.read_bytes()
        for changed in (whole[:-1], whole + b"x", whole[:-9] + b"\x01" + whole[-8:]):
            if path.name == "corpus.json" and changed.endswith(b"x"):
                continue
            path.write_bytes(changed)
            if changed != whole:
                with pytest.raises(RustLLMError):
                    corpus.verify(out)
        path.write_bytes(whole)
        path.rename(tmp_path / "away")
        with pytest.raises(FileMissingError):
            corpus.verify(out)
        (tmp_path / "away").rename(path)
    assert corpus.verify(out) == facts


def test_errors_of_verify_say_what_kind(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS[:5])
    out = tmp_path / "out"
    corpus.tokenize([source], out, TOKENIZER)
    ids = out / "tokens.bin"
    whole = ids.read_bytes()
    ids.write_bytes(whole[:-2])
    with pytest.raises(TruncatedFileError):
        corpus.Corpus(out)
    ids.write_bytes(b"\xff" + whole[1:])
    with pytest.raises(HashMismatchError):
        corpus.verify(out)
    (out / "corpus.json").write_text("{}")
    with pytest.raises(FileFormatError):
        corpus.verify(out)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("documents", 4),
        ("tokens", "9"),
        ("plan", 1),
        ("tokenizer", None),
        ("files", {}),
        ("files", {"tokens.bin": {}, "lengths.bin": {}}),
        ("files", {"../tokens.bin": {"bytes": 1, "sha256": ""}}),
        ("sources", [1]),
        ("options", []),
        ("options", {"format": 1}),
        ("options", {"format": "bin", "dtype": "float16"}),
        ("options", {"format": "bin", "dtype": "uint16", "n_vocab": -1}),
    ],
)
def test_a_manifest_is_checked_field_by_field(tmp_path, key, value):
    out = tmp_path / "out"
    corpus.tokenize([write_jsonl(tmp_path / "in.jsonl", DOCUMENTS[:5])], out, TOKENIZER)
    manifest = json.loads((out / "corpus.json").read_text())
    if key == "files" and value:
        value = {**manifest["files"], **value}
    (out / "corpus.json").write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(FileFormatError):
        corpus.Corpus(out)


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"version": 99}', "{}", "no"])
def test_what_is_no_plan_or_manifest_is_said(tmp_path, text):
    out = tmp_path / "out"
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS[:5])
    corpus.tokenize([source], out, TOKENIZER)
    (out / "corpus.json").write_text(text)
    with pytest.raises(FileFormatError, match="no manifest"):
        corpus.Corpus(out)
    with pytest.raises(FileFormatError, match="plan"):
        Plan.from_json(text, out / "plan.json")


def test_lines_longer_than_a_block_are_read_once(tmp_path):
    long = "x" * (3 << 20)
    source = write_jsonl(tmp_path / "in.jsonl", ["a", long, "b", long])
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER, unit_bytes=1 << 20)
    assert [len(d) for d in made] == [2, len(long) + 1, 2, len(long) + 1]
    assert made[2].tolist() == [98, END]


def test_stats_are_those_of_the_documents(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    corpus.tokenize([source], tmp_path / "out", TOKENIZER)
    got = corpus.stats(tmp_path / "out")
    lengths = [len(d.encode()) + 1 for d in DOCUMENTS]
    assert got["tokens"] == sum(lengths)
    assert got["text_bytes"] == sum(lengths) - len(lengths)
    assert got["lengths"]["median"] == np.median(lengths)
    assert got["lengths"]["most"] == max(lengths)
    assert sum(c["documents"] for c in got["histogram"]) == len(lengths)
    for c in got["histogram"]:
        assert c["documents"] == sum(c["from"] <= n <= c["to"] for n in lengths)
    assert got["sources"][0]["tokens"] == sum(lengths)
    json.dumps(got)


def test_documents_and_windows_are_views(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", DOCUMENTS)
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER)
    assert np.shares_memory(made[3], made.ids)
    assert made[-1].tolist() == made[len(made) - 1].tolist()
    windows = made.tokens().chunk(64, drop_last=True).to_list()
    assert all(np.shares_memory(w, made.ids) for w in windows)
    with pytest.raises(IndexError):
        made[len(made)]


@pytest.mark.parametrize(
    "options",
    [
        {"format": "parquet"},
        {"dtype": "uint8"},
        {"format": "megatron", "dtype": "uint32"},
        {"on_error": "ignore"},
        {"kind": "pdf"},
        {"unit_bytes": 0},
        {"end_token": "<none>"},
        {"end_token": 257},
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(tmp_path, options):
    source = write_jsonl(tmp_path / "in.jsonl", ["a"])
    with pytest.raises(ArgumentError):
        corpus.tokenize([source], tmp_path / "out", TOKENIZER, **options)
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_none_are_refused(tmp_path):
    with pytest.raises(ArgumentError):
        corpus.tokenize([], tmp_path / "out", TOKENIZER)
    with pytest.raises(FileMissingError):
        corpus.tokenize([tmp_path / "none"], tmp_path / "out", TOKENIZER)
    source = write_jsonl(tmp_path / "in.jsonl", ["a"])
    with pytest.raises(ArgumentError, match="twice"):
        corpus.tokenize([source, source], tmp_path / "out", TOKENIZER)


def test_an_empty_input_is_an_empty_corpus(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"")
    made = corpus.tokenize([source], tmp_path / "out", TOKENIZER, kind="jsonl")
    assert (len(made), len(made.ids)) == (0, 0)
    assert corpus.verify(tmp_path / "out")["tokens"] == 0
    assert corpus.stats(tmp_path / "out")["bytes_per_token"] is None
