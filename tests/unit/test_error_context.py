import asyncio
import dataclasses
import gc
import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from paths import ROOT

from rustllm.errors import (
    ErrorFrame,
    FileFormatError,
    StateError,
    convert_errors,
    error_as_dict,
    error_as_json,
    error_chain,
    error_context,
    error_frames,
    error_report,
)


def whats(error):
    return [frame.what for frame in error_frames(error)]


def test_frames_nest_innermost_first_on_own_and_foreign_errors():
    for kind in (StateError, ValueError, KeyError, OSError, StopAsyncIteration):
        with (
            pytest.raises(kind) as caught,
            error_context("outer", path="p"),
            error_context("inner", offset=3),
        ):
            raise kind("x")
        expected = [] if kind is StopAsyncIteration else ["inner", "outer"]
        assert whats(caught.value) == expected
    assert error_frames(ValueError()) == ()


def test_short_text_of_an_error_is_unchanged_by_context():
    with pytest.raises(FileFormatError) as caught, error_context("outer", path="p"):
        raise FileFormatError("bad", path="x", hint="look")
    assert str(caught.value) == "x: bad (look)"


def test_frames_show_as_notes_in_tracebacks():
    with pytest.raises(ValueError, match="x") as caught, error_context("loading", name="q"):
        raise ValueError("x")
    assert caught.value.__notes__ == ["while loading (name='q')"]


def test_fields_may_have_any_name_and_be_updated():
    with (
        pytest.raises(ValueError, match="x") as caught,
        error_context("scan", what=1, self=2, offset=0) as context,
    ):
        context.update(offset=4096)
        raise ValueError("x")
    assert error_frames(caught.value)[0].fields == {"what": 1, "self": 2, "offset": 4096}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), StopIteration()])
def test_control_flow_passes_unmarked(error):
    with pytest.raises(type(error)) as caught, error_context("x"):
        raise error
    assert error_frames(caught.value) == ()


def test_classes_that_refuse_attributes_and_reprs_that_fail_are_marked_all_the_same():
    @dataclasses.dataclass(frozen=True)
    class Frozen(Exception):
        n: int

    class Bad:
        def __repr__(self):
            raise RuntimeError("no repr")

    # Straight through __exit__: contextlib and pytest set attributes that a frozen class refuses.
    error = Frozen(1)
    error_context("x", value=Bad()).__exit__(Frozen, error, None)
    assert "repr failed with RuntimeError" in error.__notes__[0]
    error_context("x", value="y" * 5000).__exit__(Frozen, error, None)
    assert len(error.__notes__[1]) < 300


def test_a_context_marks_an_error_once_however_often_it_passes():
    error, context = ValueError("x"), error_context("x")
    for _ in range(3):
        with pytest.raises(ValueError, match="x"), context:
            raise error
    assert whats(error) == ["x"]


def test_frames_travel_across_threads_and_gain_those_of_the_caller():
    def work(n):
        with error_context("in worker", n=n):
            raise FileFormatError("bad", offset=n)

    with ThreadPoolExecutor(2) as pool:
        future = pool.submit(work, 7)
        with pytest.raises(FileFormatError) as caught, error_context("in caller"):
            future.result()
    assert whats(caught.value) == ["in worker", "in caller"]


def test_frames_of_concurrent_tasks_do_not_mix():
    async def work(n):
        with error_context("task", n=n):
            await asyncio.sleep(0)
            raise ValueError(n)

    async def main():
        return await asyncio.gather(*(work(n) for n in range(20)), return_exceptions=True)

    for n, error in enumerate(asyncio.run(main())):
        assert [frame.fields for frame in error_frames(error)] == [{"n": n}]


def test_frames_survive_pickling_on_own_and_foreign_errors():
    for kind in (FileFormatError, ValueError, OSError, KeyError):
        with (
            pytest.raises(kind) as caught,
            error_context("outer"),
            error_context("inner", name="q", size=np.int64(3)),
        ):
            raise kind("x")
        again = pickle.loads(pickle.dumps(caught.value))
        assert error_frames(again) == error_frames(caught.value)
        assert again.__notes__ == caught.value.__notes__


def test_frames_with_values_that_cannot_be_pickled_still_travel():
    with pytest.raises(StateError) as caught, error_context("x", lock=threading.Lock()):
        raise StateError("busy")
    again = pickle.loads(pickle.dumps(caught.value))
    assert "lock" in error_frames(again)[0].fields["lock"]


def test_frames_cross_a_process_boundary():
    child = (
        "import pickle, sys\n"
        "from rustllm.errors import *\n"
        "try:\n"
        "    with error_context('in worker', shard=3), convert_errors(path='x.json'):\n"
        "        import json; json.loads('{')\n"
        "except RustLLMError as error:\n"
        "    sys.stdout.buffer.write(pickle.dumps(error))\n"
    )
    run = subprocess.run([sys.executable, "-c", child], cwd=ROOT, capture_output=True, check=True)
    error = pickle.loads(run.stdout)
    assert type(error) is FileFormatError
    assert error.path == "x.json"
    assert error_frames(error) == (ErrorFrame("in worker", {"shard": 3}),)
    assert type(error.__cause__).__name__ == "JSONDecodeError"


def test_eight_threads_sharing_one_context_and_one_error_lose_nothing():
    error = ValueError("shared")
    start = threading.Barrier(8)

    def work(n):
        start.wait()
        for i in range(50):
            try:
                with error_context("worker", n=n, i=i):
                    raise error
            except ValueError:
                pass

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    marks = sorted((frame.fields["n"], frame.fields["i"]) for frame in error_frames(error))
    assert marks == [(n, i) for n in range(8) for i in range(50)]


def test_nothing_is_kept_when_nothing_fails():
    class Marker:
        alive = 0

        def __init__(self):
            Marker.alive += 1

        def __del__(self):
            Marker.alive -= 1

    for _ in range(1000):
        with error_context("x", value=Marker()):
            pass
    gc.collect()
    assert Marker.alive == 0


# chains and reports -------------------------------------------------------------


def chained():
    try:
        try:
            with error_context("reading block", offset=np.int64(64)):
                raise OSError(5, "I/O error")
        except OSError as cause:
            raise StateError("gone", hint="reopen it") from cause
    except StateError as error:
        return error


def test_chain_follows_cause_then_context_unless_suppressed():
    root, middle, top = ValueError("root"), KeyError("middle"), StateError("top")
    top.__cause__, middle.__context__ = middle, root
    assert error_chain(top) == (top, middle, root)
    middle.__suppress_context__ = True
    assert error_chain(top) == (top, middle)


def test_chain_ends_on_a_loop():
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__cause__ = b, a
    assert error_chain(a) == (a, b)
    assert error_report(a).count("\n") == 1


def test_report_reads_from_failure_to_root_cause():
    assert error_report(chained()).splitlines() == [
        "error[state]: gone",
        "  hint: reopen it",
        "caused by OSError: [Errno 5] I/O error",
        f"  while reading block (offset={np.int64(64)!r})",
    ]


def test_json_report_holds_the_same_facts():
    facts = json.loads(error_as_json(chained()))
    assert facts["schema"] == 1
    assert (facts["type"], facts["code"], facts["hint"]) == ("StateError", "state", "reopen it")
    (cause,) = facts["causes"]
    assert (cause["type"], cause["code"]) == ("OSError", None)
    assert cause["frames"] == [{"what": "reading block", "fields": {"offset": 64}}]


def test_json_report_takes_any_value():
    loop: list = []
    loop.append(loop)
    error = StateError(
        "x",
        nan=float("nan"),
        inf=np.float32("inf"),
        path=ROOT,
        data=b"\xff",
        lone="\ud800",
        loop=loop,
        shape=(1, np.int32(2)),
        nested={"a": {1: None}},
        array=np.arange(3),
    )
    fields = json.loads(error_as_json(error))["fields"]
    assert fields["nan"] == "nan"
    assert fields["inf"] == "inf"
    assert fields["shape"] == [1, 2]
    assert fields["nested"] == {"a": {"1": None}}
    assert fields["lone"] == "\\ud800"


def test_reports_survive_exceptions_whose_text_fails():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    assert "str failed with RuntimeError" in error_report(Mute())
    assert "str failed" in error_as_dict(Mute())["message"]


def test_groups_report_their_members():
    group = ExceptionGroup("two shards", [chained(), ValueError("b")])
    report = error_report(group)
    assert "  | error[state]: gone" in report
    assert "  | ValueError: b" in report
    facts = error_as_dict(group)
    assert [member["type"] for member in facts["errors"]] == ["StateError", "ValueError"]
    many = ExceptionGroup("many", [ValueError(str(n)) for n in range(100)])
    assert "and 68 more" in error_report(many)


def test_context_manager_and_conversion_compose_in_either_order():
    with pytest.raises(FileFormatError) as first, convert_errors(), error_context("x"):
        json.loads("{")
    with pytest.raises(FileFormatError) as second, error_context("x"), convert_errors():
        json.loads("{")
    assert whats(first.value) == whats(second.value) == ["x"]
