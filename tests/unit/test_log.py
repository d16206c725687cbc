"""Logging with fields, levels by environment, and sinks."""

import io
import json
import logging
import os
import subprocess
import sys

import pytest

from rustllm.errors import ArgumentError
from rustllm.log import add_sink, as_json_line, get_logger, set_levels


@pytest.fixture(autouse=True)
def plain_levels():
    yield
    for name in ("rustllm", "rustllm.one", "rustllm.two"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_fields_stay_apart_for_sinks_and_join_the_text_for_handlers(caplog):
    seen = []
    with add_sink(seen.append):
        get_logger("one").warning("read 100%", path="a b", n=3, error=ValueError("no"))
    assert seen[0]["message"] == "read 100%"
    assert seen[0]["fields"]["n"] == 3
    assert seen[0]["level"] == "warning"
    assert caplog.messages == ["read 100% path='a b' n=3 error='ValueError: no'"]
    get_logger("one").warning("after the sink is closed")
    assert len(seen) == 1


def test_levels_are_set_by_part():
    set_levels("error,two=debug")
    seen = []
    with add_sink(seen.append):
        get_logger("one").info("hidden")
        get_logger("two").debug("shown")
    assert [message["message"] for message in seen] == ["shown"]
    assert not get_logger("one").is_enabled("warning")
    with pytest.raises(ArgumentError):
        set_levels("one=loud")


def test_json_lines_are_json_lines():
    stream = io.StringIO()
    with add_sink(as_json_line(stream)):
        get_logger("one").error("x\ny", what={"set"}, error=KeyError("k"))
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == "x\ny"


def test_a_failing_sink_does_not_fail_the_caller(capsys):
    def fail(message):
        raise RuntimeError("sink broke")

    with add_sink(fail):
        get_logger("one").warning("still here")
    assert "sink broke" in capsys.readouterr().err


def test_the_caller_is_named_not_the_wrapper(caplog):
    get_logger("one").warning("here")
    assert caplog.records[0].filename == "test_log.py"


def run(code, **environ):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout, done.stderr, done.returncode


CODE = """
import logging
from rustllm.log import get_logger
log = get_logger("plugins")
log.debug("detail", n=1)
log.warning("warned", n=2)
print(len(logging.getLogger("rustllm").handlers), len(logging.getLogger().handlers))
"""


def test_without_the_variable_nothing_is_installed_and_warnings_show():
    out, err, _ = run(CODE, RUSTLLM_LOG="")
    assert out.split() == ["0", "0"]
    assert err == "warned n=2\n"


def test_the_variable_sets_levels_and_prints():
    _, err, _ = run(CODE, RUSTLLM_LOG="rustllm.plugins=debug")
    assert "debug: rustllm.plugins: detail n=1" in err
    _, err, code = run(CODE, RUSTLLM_LOG="shout")
    assert code == 1
    assert "ConfigError" in err
    assert "RUSTLLM_LOG" in err or "'shout'" in err
