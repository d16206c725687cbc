"""Memory is that of a batch, whatever the size of a unit that cannot be split."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT

from rustllm import BpeTrainer, corpus
from rustllm.errors import MemoryLimitError, RustLLMError
from rustllm.testing import ByteTokenizer

WORDS = "the quick brown fox doesn't jump over 123 lazy dogs; it naps naïvely\n"
MEGABYTES = 48
# The peak that getrusage tells begins with the process that started this one.
PEAK = """
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) // 1024
"""
SCRIPT = """
import pickle, sys
from rustllm import corpus
tokenizer = pickle.loads(bytes.fromhex(sys.argv[3]))
kind = sys.argv[4] or None
corpus.tokenize([sys.argv[1]], sys.argv[2] + "-small", tokenizer, mode="inline", kind=kind)
before = peak()
corpus.tokenize([sys.argv[1] + "-large"], sys.argv[2], tokenizer, mode="inline", kind=kind)
print(peak() - before)
"""


def lines(n):
    line = json.dumps({"text": WORDS * 20}).encode() + b"\n"
    return line * (n // len(line))


def table(n):
    return b"id,text\n" + (b'1,"' + WORDS.encode() * 20 + b'"\n') * (n // 1400)


SHAPES = {
    "one text": (lambda n: WORDS.encode() * (n // len(WORDS)), None),
    "one text in UTF-16": (lambda n: (WORDS * (n // 140)).encode("utf-16"), None),
    "compressed lines": (lambda n: gzip.compress(lines(n), 1), None),
    "one line": (lambda n: json.dumps({"text": WORDS * (n // 80)}).encode() + b"\n", "jsonl"),
    "a table": (table, "csv"),
    "lines that are no records": (lambda n: b"[]\n" * (n // 400), "jsonl"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("shape", SHAPES)
def test_peak_memory_does_not_grow_with_the_unit(tmp_path, shape):
    import pickle

    make, kind = SHAPES[shape]
    size = (24 if shape in ("one line", "a table") else 96) << 20
    source = tmp_path / "in"
    source.write_bytes(make(1 << 20))
    (tmp_path / "in-large").write_bytes(make(size))
    tokenizer = BpeTrainer(400).train([WORDS * 9]).tokenizer
    script = PEAK + SCRIPT
    if shape == "lines that are no records":
        script = script.replace("mode=", "on_error='quarantine', mode=")
    told = subprocess.run(
        [
            sys.executable, "-c", script, str(source), str(tmp_path / "out"),
            pickle.dumps(tokenizer).hex(), kind or "",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) < MEGABYTES + (size >> 20 if shape == "one line" else 0)


LIMIT = 500
# Each writes a file, and says how its documents are read and what has to come of it.
EXTREMES = {
    "a line of 64 MiB that only Python reads": """
with open(path, "w") as file:
    file.write('{"a": NaN, "text": "' + "word " * (12 << 20) + '"}')
kind, outcome = "jsonl", "1 documents"
""",
    "a line of characters that take four bytes each in Python": """
with open(path, "w") as file:
    pair = chr(92) + "ud83d" + chr(92) + "ude00"
    file.write('{"a": NaN, "text": "' + pair + "x" * (63 << 20) + '"}')
kind, outcome = "jsonl", "MemoryLimitError"
""",
    "an array of 200 MB": """
with open(path, "w") as file:
    file.write("[")
    for i in range(20_000):
        file.write('{"text": "' + "word " * 2_000 + '"},')
    file.write('{"text": "end"}]')
kind, outcome = None, "20001 documents"
""",
    "a text of 300 MB in one line": """
with open(path, "w") as file:
    for i in range(300):
        file.write("some words of a text that never ends " * 27_000)
kind, outcome = "text", "1 documents"
""",
    "a text of 300 MB without a place to cut it": """
with open(path, "w") as file:
    for i in range(300):
        file.write("x" * 1_000_000)
kind, outcome = "text", "MemoryLimitError"
""",
    "a bomb of lines": """
import gzip
with gzip.open(path, "wb", 9) as file:
    for i in range(2_000):
        file.write(bytes(1_000_000))
kind, outcome = "lines", "Error"
""",
    "a text of 400 MB in half a megabyte": """
import gzip
with gzip.open(path, "wb", 9) as file:
    for i in range(2_000):
        file.write(b"word " * 40_000)
kind, outcome = "text", "1 documents"
""",
}
EXTREME = """
import pickle, sys
from rustllm import corpus
from rustllm.errors import RustLLMError
tokenizer = pickle.loads(bytes.fromhex(sys.argv[1]))
kind = None if sys.argv[4] == "None" else sys.argv[4]
try:
    made = corpus.tokenize([sys.argv[2]], sys.argv[3], tokenizer, workers=2, kind=kind)
    print(len(made), "documents")
except RustLLMError as error:
    print(type(error).__name__)
print(peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("shape", EXTREMES)
def test_peak_memory_is_bounded_whatever_the_input(tmp_path, shape):
    import pickle

    told: dict = {"path": str(tmp_path / "in")}
    exec(EXTREMES[shape], told)
    tokenizer = BpeTrainer(400).train([WORDS * 9]).tokenizer
    done = subprocess.run(
        [
            sys.executable, "-c", PEAK + EXTREME, pickle.dumps(tokenizer).hex(),
            str(tmp_path / "in"), str(tmp_path / "out"), str(told["kind"]),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (tmp_path / "in").unlink()
    assert done.returncode == 0, done.stderr
    outcome, peak = done.stdout.splitlines()
    assert outcome.endswith(told["outcome"])
    assert int(peak) < LIMIT


def make_tokenizers():
    bpe = BpeTrainer(300, special_tokens=["<end>"]).train([WORDS * 9]).tokenizer
    return {"bpe": bpe, "bytes": ByteTokenizer(["<end>"])}


@pytest.mark.parametrize("name", ["bpe", "bytes"])
@pytest.mark.parametrize("kind", ["text", "lines", "jsonl", "csv"])
def test_documents_in_pieces_have_the_ids_of_the_whole(tmp_path, monkeypatch, name, kind):
    monkeypatch.setattr("rustllm.corpus.units._PIECE", 1 << 10)
    monkeypatch.setattr("rustllm.corpus.units._LONG", 1 << 11)
    monkeypatch.setattr("rustllm.corpus.units._NEAR", 1 << 8)
    monkeypatch.setattr("rustllm.corpus.blocks._ROOM", 1 << 9)
    tokenizer = make_tokenizers()[name]
    parts = [WORDS, "  ", "\n\n", "ß語😀 ", "x" * 300, "<end>", "1234567", "don't\r\n", "\t\t a"]
    draw = np.random.default_rng(3)
    texts = ["".join(draw.choice(parts, n)) for n in (0, 1, 400, 3, 900, 2, 50)]
    if kind == "lines":
        texts = [text.replace("\n", "").replace("\r", "") for text in texts]
    texts = [text for text in texts if kind not in ("lines", "csv") or text.strip()]
    source = tmp_path / "in"
    if kind == "text":
        sources = [tmp_path / f"{i}.txt" for i in range(len(texts))]
        for path, text in zip(sources, texts, strict=True):
            path.write_bytes(b"\xef\xbb\xbf" * (len(text) % 2) + text.encode())
    else:
        sources = [source]
        rows = {
            "lines": lambda: "".join(text + "\n" for text in texts),
            "jsonl": lambda: "".join(json.dumps({"text": text}) + "\n" for text in texts),
            "csv": lambda: "id,text\n" + "".join(f'1,"{text}"\n' for text in texts),
        }
        source.write_bytes(rows[kind]().encode())
    made = corpus.tokenize(sources, tmp_path / "out", tokenizer, kind=kind, mode="inline")
    end = tokenizer.special_tokens["<end>"]
    if kind == "csv":  # the reader gives line ends of one kind
        texts = [text.replace("\r\n", "\n") for text in texts]
    assert [d.tolist() for d in made] == [[*tokenizer.encode_ordinary(t), end] for t in texts]
    assert made.manifest["text_bytes"] == sum(len(t.encode()) for t in texts)


def test_a_document_that_breaks_off_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("rustllm.corpus.units._PIECE", 1 << 10)
    tokenizer = make_tokenizers()["bpe"]
    for i, data in enumerate(
        [WORDS.encode() * 1500, WORDS.encode() * 1500 + b"\xff" + b"a" * 5000]
    ):
        (tmp_path / f"{i}.txt").write_bytes(data)
    made = corpus.tokenize(
        [tmp_path / "1.txt", tmp_path / "0.txt"], tmp_path / "out", tokenizer,
        kind="text", on_error="quarantine", mode="inline",
    )  # fmt: skip
    assert [d.tolist()[:-1] for d in made] == [tokenizer.encode_ordinary(WORDS * 1500)]
    assert made.manifest["failures"] == 1
    with pytest.raises(RustLLMError, match="utf-8"):
        corpus.tokenize([tmp_path / "1.txt"], tmp_path / "raise", tokenizer, kind="text")


def test_what_can_only_be_encoded_whole_is_refused_beyond_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("rustllm.corpus.units.MAX_LINE", 1 << 12)
    monkeypatch.setattr("rustllm.corpus.blocks.MAX_LINE", 1 << 12)
    monkeypatch.setattr("rustllm.corpus.blocks._ROOM", 1 << 10)
    source = tmp_path / "in.txt"
    source.write_bytes(b"x" * (1 << 14))
    with pytest.raises(MemoryLimitError, match="whole"):
        corpus.tokenize([source], tmp_path / "out", ByteTokenizer(), kind="text", mode="inline")
    with pytest.raises(MemoryLimitError, match="line"):
        corpus.tokenize([source], tmp_path / "lines", ByteTokenizer(), kind="lines", mode="inline")
