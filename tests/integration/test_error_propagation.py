"""One failure at the bottom, seen from every height: kernel, file, worker, stream, command line."""

import asyncio
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT

from rustllm import TokenIterator, error_chain, error_context, parallel_map, serialize, stream
from rustllm._core import status
from rustllm.errors import (
    FileFormatError,
    FileMissingError,
    HashMismatchError,
    OutOfMemoryError,
    RustLLMError,
    TruncatedFileError,
    error_report,
)


@pytest.fixture
def damaged(tmp_path):
    path = tmp_path / "shard.rllm"
    serialize.dump({"ids": np.arange(100)}, path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


def load(path):
    with error_context("loading shard", shard=os.fspath(path)):
        return serialize.load(path)


def reached(error, path):
    """See that an error says what it said where it was raised."""
    assert isinstance(error, HashMismatchError)
    assert isinstance(error, ValueError)
    assert os.fspath(error.path) == os.fspath(path)
    assert error.expected != error.actual
    assert error.frames[0].what == "loading shard"


def test_a_status_code_of_compiled_code_becomes_the_right_exception():
    with pytest.raises(OutOfMemoryError) as caught:
        status.check_status(status.Status.NO_MEMORY, "packing weights")
    assert isinstance(caught.value, MemoryError)
    with pytest.raises(TruncatedFileError):
        status.check_status(status.Status.TRUNCATED, "reading header")
    assert status.check_status(7, "fine") == 7


def test_through_a_chain_of_lazy_steps(damaged):
    ids = TokenIterator([damaged]).map(load).flat_map(lambda tree: tree["ids"]).chunk(3)
    with pytest.raises(HashMismatchError) as caught:
        ids.to_list()
    reached(caught.value, damaged)


@pytest.mark.parametrize("mode", ["inline", "threads", "processes"])
def test_through_workers_with_the_contexts_of_both_sides(damaged, mode):
    with pytest.raises(HashMismatchError) as caught, error_context("tokenizing", corpus="tiny"):
        list(parallel_map(load, [damaged], workers=2, mode=mode))
    reached(caught.value, damaged)
    whats = [frame.what for frame in caught.value.frames]
    assert whats == ["loading shard", "mapping in parallel", "tokenizing"]
    assert caught.value.frames[1].fields == {"item": 0}


def test_through_threads_that_read_ahead_and_maps_that_follow(damaged):
    source = stream.prefetch(map(load, [damaged]))
    with pytest.raises(HashMismatchError) as caught:
        list(parallel_map(len, source, workers=2))
    reached(caught.value, damaged)


def test_through_asynchronous_pipes(damaged):
    async def main():
        async def load_soon(path):
            return await asyncio.to_thread(load, path)

        pipe = stream.aio.prefetch(stream.aio.map(load_soon, [damaged]))
        return [tree async for tree in pipe]

    with pytest.raises(HashMismatchError) as caught:
        asyncio.run(main())
    reached(caught.value, damaged)


def test_through_pickling_and_into_reports(damaged):
    with pytest.raises(HashMismatchError) as caught:
        load(damaged)
    again = pickle.loads(pickle.dumps(caught.value))
    reached(again, damaged)
    report = error_report(again)
    assert "loading shard" in str(report)
    assert "checksum" in str(report)


def test_the_chain_names_the_cause(tmp_path):
    with pytest.raises(FileMissingError) as caught:
        load(tmp_path / "none.rllm")
    kinds = [type(error) for error in error_chain(caught.value)]
    assert kinds[0] is FileMissingError
    assert FileNotFoundError in kinds


def test_an_error_of_one_item_leaves_the_others_their_results(damaged, tmp_path):
    good = tmp_path / "good.rllm"
    serialize.dump({"ids": np.arange(3)}, good)
    got = []
    with pytest.raises(HashMismatchError):
        for tree in parallel_map(load, [good, good, damaged, good], workers=2):
            got.append(len(tree["ids"]))
    assert got == [3, 3]


def test_up_to_the_command_line_with_exit_code_and_json(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 16)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-m", "rustllm", "inspect", "--json", str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == FileFormatError.exit_code
    assert "Traceback" not in result.stderr
    said = result.stdout + result.stderr
    document = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert "broken.gguf" in json.dumps(document)
    assert issubclass(FileFormatError, RustLLMError)
