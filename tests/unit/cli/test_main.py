"""The command line as a whole: help, versions, errors, streams, signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rustllm
from rustllm.cli import COMMANDS, build_parser, main
from rustllm.errors import RustLLMError


def run(*args: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "rustllm", *args],
        capture_output=True,
        timeout=60,
        stdin=kwargs.pop("stdin", subprocess.DEVNULL) if "input" not in kwargs else None,
        **kwargs,
    )


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"rustllm {rustllm.__version__}\n"


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"    {name} " in printed for name in COMMANDS)


def test_every_command_has_a_file_and_every_file_of_a_command_a_row():
    folder = Path(rustllm.cli.__file__).parent
    files = {p.stem for p in folder.glob("*.py") if "\ndef add_arguments(" in p.read_text("utf-8")}
    assert files == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_json(command):
    text = build_parser(command)._subparsers._group_actions[0].choices[command].format_help()
    assert f"rustllm {command}" in text.split("examples:")[1]
    assert "--json" in text and "--debug" in text


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["count", "--help"]])
def test_help_loads_no_numpy(args):
    code = (
        "import sys; from rustllm.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["bench", "config", "corpus", "plugins"])
def test_a_command_without_its_action_names_the_actions(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command])
    assert caught.value.code == 2
    said = capsys.readouterr().err.rpartition("required: ")[2]
    actions = said.partition("{")[2].partition("}")[0].split(",")
    assert "NAME" not in said and all(a.isalpha() for a in actions)
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert all(f"{action}: " in " ".join(shown.split()) for action in actions)


def test_the_help_lists_every_exit_status(capsys):
    main([])
    listed = capsys.readouterr().out.partition("Exit status: ")[2]
    kinds, statuses = [RustLLMError], set()
    for kind in kinds:
        kinds += kind.__subclasses__()
        statuses.add(kind.exit_code)
    assert {int(word) for word in re.findall(r"\b\d+\b", listed)} == statuses | {0}


def test_a_wrong_option_is_exit_status_2():
    done = run("generate", "--no-such-option", "x")
    assert done.returncode == 2
    assert done.stdout == b"" and b"--no-such-option" in done.stderr


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["inspect", "no/such/file.gguf"], 3, "no/such/file.gguf"),
        (["pull", "gpt-99"], 3, "smollm2-135m-instruct"),
        (["count"], 2, "nothing to count"),
        (["count", "-t", "no/such.json", "x"], 3, "no/such.json"),
        (["generate"], 2, "no prompt"),
        (["generate", "x", "--file", "y"], 2, "twice"),
        (["generate", "--file", "no-such-prompt.txt"], 3, "no-such-prompt.txt"),
        (["generate", "--temperature", "-1", "x"], 2, "at least 0"),
        (["generate", "--top-p", "nan", "x"], 2, "from 0 to 1"),
        (["generate", "-n", "0", "x"], 2, "less than 1"),
        (["decode", "12x"], 2, "'12x'"),
        (["decode"], 2, "no ids"),
        (["encode", "--file", "."], 3, "directory"),
    ],
)
def test_errors_are_short_typed_and_without_a_traceback(args, status, said):
    done = run(*args)
    text = done.stderr.decode()
    assert done.returncode == status, text
    assert done.stdout == b""
    assert said in text and "Traceback" not in text
    assert "error: " in text


def test_debug_shows_the_traceback():
    done = run("inspect", "--debug", "no/such/file.gguf")
    assert done.returncode == 3 and b"Traceback" in done.stderr


def test_json_prints_the_error_as_a_document():
    done = run("inspect", "--json", "no/such/file.gguf")
    document = json.loads(done.stdout)
    assert done.returncode == document["exit_code"] == 3
    assert document["schema"] == "rustllm.error" and document["schema_version"] == 1
    assert document["code"] == "file.missing"
    assert document["fields"]["path"] == "no/such/file.gguf"


def test_input_that_is_not_utf8_says_where():
    done = run("count", "-", input=b"good \xff bad")
    assert done.returncode == 2
    assert b"stdin, offset 5: not UTF-8: byte 0xff" in done.stderr


def test_control_characters_of_a_damaged_file_do_not_reach_the_terminal(capsys):
    from rustllm.cli.report import report

    assert report(RustLLMError("key \x1b[2J\n is unknown", hint="none")) == 1
    assert capsys.readouterr().err.startswith("rustllm: error: key \\x1b[2J\\x0a is unknown\n")


def test_an_internal_error_asks_for_a_report(capsys):
    from rustllm.cli.report import report

    assert report(ZeroDivisionError("division by zero")) == 70
    assert "internal error: ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [(MemoryError(), 6), (PermissionError(13, "Permission denied", "f"), 3), (OSError("odd"), 3)],
)
def test_plain_built_in_errors_have_the_status_of_their_class(error, status, capsys):
    from rustllm.cli.report import report

    assert report(error) == status
    assert "internal" not in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("busy", ["python", "foreign"])
def test_an_interrupt_ends_the_program_at_once_with_130(tmp_path, busy):
    # A command that hangs: in Python code, or in C code that never looks at signals (a read that
    # the signal does not end, because SA_RESTART is set for it).
    work = {
        "python": "while True: pass",
        "foreign": "signal.siginterrupt(2, False); ctypes.CDLL(None).read(*os.pipe())",
    }[busy]
    code = (
        "import ctypes, os, signal, sys, rustllm.cli.count as count\n"
        "from rustllm.cli import main\n"
        "def hang(args):\n"
        "    print('ready', flush=True)\n"
        f"    {work}\n"
        "count.run = hang\n"
        "sys.exit(main(['count', 'x']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, said = child.communicate(timeout=30)
        assert child.returncode == 130
        assert said == b""
        assert time.monotonic() - started < 20


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_closed_pipe_is_quiet():
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [sys.executable, "-m", "rustllm", "pull", "--list"],
        stdout=writing,
        stderr=subprocess.PIPE,
    ) as child:
        os.close(writing)
        _, said = child.communicate(timeout=60)
    assert said == b"" and child.returncode == 141


def test_python_m_is_the_command():
    assert run("--version").stdout == f"rustllm {rustllm.__version__}\n".encode()


def test_ids_are_read_in_every_form_they_are_printed():
    from rustllm.cli.decode import parse_ids

    assert parse_ids("") == [] == parse_ids("[]")
    assert parse_ids("1 2\n3") == parse_ids("[1, 2,3]") == parse_ids("1,2,3,") == [1, 2, 3]


@pytest.mark.parametrize("text", ["-1", "1.5", "0x1", "99999999999", '{"ids": "1"}', "{", "[[1]]"])
def test_what_is_not_an_id_is_refused(text):
    from rustllm.cli.decode import parse_ids

    with pytest.raises(rustllm.errors.ArgumentError):
        parse_ids(text)
