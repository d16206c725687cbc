"""`rustllm bench`: tables and documents, and arguments that do not fit."""

import json

import pytest

from rustllm.bench import Measurement
from rustllm.cli import main

FAST = ["--threads", "1", "--rounds", "1"]


def document(capsys, *args):
    assert main(["bench", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_roofline_as_a_document_and_a_picture(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "roofline.svg"
    found = document(
        capsys, "roofline", *FAST, "--seconds", "0", "--types", "q8_0", "--plot", str(plot)
    )
    assert found["schema"] == "rustllm.bench.roofline"
    assert [p["threads"] for p in found["peaks"]] == [1]
    assert {k["group"] for k in found["kernels"]} == {
        *("matrix-vector", "matrix-matrix", "attention decode", "attention prefill")
    }
    assert all(k["share_of_bound"] > 0 for k in found["kernels"])
    assert "<svg" in plot.read_text()


def test_roofline_as_a_table(capsys):
    assert main(["bench", "roofline", *FAST, "--seconds", "0", "--types", "q4_0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 thread: memory") and "GB/s" in lines[0]
    assert [line.split()[0] for line in lines[3:]] == ["matrix-vector", "matrix-matrix"] + 2 * [
        "attention"
    ]


def test_a_model(capsys, smollm2_path):
    args = ["model", str(smollm2_path), *FAST, "--prompt", "8", "--tokens", "2", "--depth", "16"]
    found = document(capsys, *args)
    (row,) = found["runs"]
    assert row["threads"] == 1 and row["first_token_seconds"] > row["load_seconds"] > 0
    assert main(["bench", *args]) == 0
    text = capsys.readouterr().out
    for word in ("1 thread", "file to first token", "prompt of 8", "after 16", "peak memory"):
        assert word in text


def test_a_tokenizer(capsys, tmp_path, smollm2_path):
    text = tmp_path / "text.txt"
    text.write_text("So it goes.\nAnd <|im_end|> goes.\n", "utf-8")
    found = document(capsys, "tokenizer", str(smollm2_path), str(text), *FAST, "--seconds", "0")
    assert found["bytes"] == text.stat().st_size and found["texts"] == 2
    (run,) = found["runs"]
    results = {k: Measurement.from_dict(m) for k, m in run["measurements"].items()}
    assert set(results) == {"load", "first", "again", "list", "batch", "count", "decode"}
    assert results["again"].n_items == found["tokens"]
    assert main(["bench", "tokenizer", str(smollm2_path), str(text), *FAST]) == 0
    assert "its lines, to one array" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["roofline", "extra"], 2),
        (["roofline", "--plot", "a.gif"], 2),
        (["roofline", "--types", "q9"], 2),
        (["model"], 2),
        (["model", "no-such-file.gguf"], 3),
        (["tokenizer", "cl100k_base"], 2),
        (["tokenizer", "cl100k_base", "no-such-file.txt"], 3),
    ],
)
def test_what_does_not_fit_is_told(args, status, capsys):
    assert main(["bench", *args]) == status
    assert capsys.readouterr().err.startswith("rustllm: error: ")


@pytest.mark.parametrize("threads", ["0", "two", "1,", "257"])
def test_numbers_of_threads_are_checked(threads):
    with pytest.raises(SystemExit) as caught:
        main(["bench", "roofline", "--threads", threads])
    assert caught.value.code == 2
