"""The command line with the default model: text, streams, signals and errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
WORD = "carbon "


def run(*args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "rustllm", *args],
        capture_output=True,
        env=ENVIRONMENT,
        timeout=120,
        stdin=None if "input" in kwargs else subprocess.DEVNULL,
        **kwargs,
    )


def document(done):
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return json.loads(done.stdout)


def test_the_readmes_question_is_answered(smollm2_path):
    done = run("generate", "--temperature", "0", "-n", "24", "Why is the sky blue?")
    assert done.returncode == 0 and done.stderr == b""
    assert "Rayleigh" in done.stdout.decode()


def test_generate_raw_is_the_librarys_continuation(smollm2_path):
    from rustllm.models.load import load_model

    options = {"max_tokens": 12, "temperature": 0.0}
    pieces = list(load_model(smollm2_path).generate("The capital of France is", **options))
    found = document(
        run("generate", "--raw", "--json", "--temperature", "0", "-n", "12",
            "The capital of France is")
    )  # fmt: skip
    assert found["text"] == "".join(pieces)
    assert found["ids"] == [id for piece in pieces for id in piece.ids]


def test_a_path_does_as_well_as_a_name(smollm2_path):
    options = ["--json", "--temperature", "0", "-n", "4", "Hello"]
    by_name = document(run("generate", "-m", "smollm2-135m-instruct", *options))
    by_path = document(run("generate", "-m", str(smollm2_path), *options))
    assert by_name["ids"] == by_path["ids"]


def test_the_same_seed_gives_the_same_text(smollm2_path):
    options = ["--json", "--temperature", "1.5", "-n", "8", "--seed", "7", "--threads"]
    first, second = (document(run("generate", *options, n, "Hello")) for n in "12")
    assert first["text"] == second["text"]


def test_chat_remembers_the_conversation(smollm2_path):
    from rustllm.models.load import load_model

    said = b"My name is Ada Lovelace.\nWhat is my name?\n"
    done = run("chat", "--json", "--temperature", "0", "-n", "16", input=said)
    assert done.returncode == 0, done.stderr.decode()
    last = json.loads(done.stdout.splitlines()[-1])
    assert [m["role"] for m in last["messages"]] == ["user", "assistant"] * 2
    pieces = load_model(smollm2_path).chat(last["messages"][:-1], max_tokens=16, temperature=0.0)
    assert "".join(pieces) == last["messages"][-1]["content"]


def test_encode_decode_and_count_agree(smollm2_path):
    text = "naïve café — 你好 😀\n\ttabs"
    ids = run("encode", "-", input=text.encode()).stdout
    assert run("decode", "-", input=ids).stdout.decode() == text
    assert int(run("count", "-", input=text.encode()).stdout) == len(ids.split())


def test_special_tokens_are_text_unless_asked_for(smollm2_path):
    assert len(run("encode", "<|im_end|>").stdout.split()) > 1
    assert run("encode", "--special", "<|im_end|>").stdout.split() == [b"2"]


def test_inspect_shows_the_plan(smollm2_path):
    done = run("inspect", "--plan", str(smollm2_path))
    assert b"attention" in done.stdout and b"token_embd.weight" in done.stdout


def test_a_prompt_longer_than_the_context_says_so(smollm2_path):
    done = run("generate", "--context", "16", "-", input=(WORD * 100).encode())
    text = done.stderr.decode()
    assert done.returncode == 2 and "Traceback" not in text and "hint: " in text
    done = run("generate", "--context", "100000", "x")
    assert done.returncode == 2 and b"8192" in done.stderr


def wait_for_the_file(pid):
    """Wait until a process has mapped its model: earlier it is Python that an interrupt meets."""
    maps = Path(f"/proc/{pid}/maps")
    if not maps.exists():
        time.sleep(0.3)
        return
    for _ in range(10_000):
        if ".gguf" in maps.read_text():
            return
        time.sleep(0.001)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("when", ["load", "prefill", "decode"])
def test_an_interrupt_stops_at_once(smollm2_path, tmp_path, when):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(WORD * (3800 if when == "prefill" else 1))
    command = [sys.executable, "-m", "rustllm", "generate", "--raw", "--exact", "--threads", "1"]
    command += ["-n", "4000", "--temperature", "0.9", "--file", str(prompt)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as child:
        if when == "decode":
            assert child.stdout.read(1)
        elif when == "load":
            wait_for_the_file(child.pid)
        else:
            time.sleep(1.5)
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, said = child.communicate(timeout=60)
        waited = time.monotonic() - started
    assert child.returncode == 130
    assert said == b""
    assert waited < 10  # the rest of this prompt takes much longer; the usual is milliseconds


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_reader_that_leaves_ends_the_stream_quietly(smollm2_path):
    command = [sys.executable, "-m", "rustllm", "generate", "--raw", "-n", "4000", "Once"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as child:
        assert child.stdout.read(1)
        child.stdout.close()
        said = child.stderr.read()
        assert child.wait(timeout=60) == 141
    assert said == b""
