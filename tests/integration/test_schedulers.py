"""Corpora made by other people's engines, on two workers each, have the bytes of a local run.

Each engine runs in a process of its own, because they leave threads, sockets and settings behind.
"""

import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys

import pytest
from fatal_tokenizer import FatalTokenizer
from paths import ROOT

from rustllm import corpus
from rustllm.testing import ByteTokenizer

pytestmark = pytest.mark.slow

# Engine -> the packages it needs, and the program that makes the corpus `out` of the file `source`.
HEAD = """
import logging, sys, warnings
from pathlib import Path
from fatal_tokenizer import FatalTokenizer
from rustllm.corpus import tokenize
from rustllm.testing import ByteTokenizer
source, out, marker = map(Path, sys.argv[1:])
tokenizer = FatalTokenizer(marker, "fatal") if marker.name != "none" else ByteTokenizer(["<end>"])
def make(scheduler):
    made = tokenize([source], out, tokenizer, unit_bytes=3000, scheduler=scheduler)
    print("made", len(made))
"""
ENGINES = {
    "ray": (
        ["ray"],
        """
import ray
ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
from rustllm.integrations.ray import scheduler
make(scheduler())
ray.shutdown()
""",
    ),
    "hf": (
        ["datasets"],
        """
import datasets
datasets.disable_progress_bars()
from rustllm.integrations.hf import scheduler
make(scheduler(num_proc=2))
""",
    ),
    "dask": (
        ["distributed"],
        """
from dask.distributed import Client, LocalCluster
from rustllm.integrations.dask import scheduler
if __name__ == "__main__":
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
    ) as cluster, Client(cluster) as client:
        make(scheduler(client))
""",
    ),
    "spark": (
        ["pyspark", "pyarrow"],
        """
from pyspark.sql import SparkSession
spark = (SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")
         .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
         .getOrCreate())
spark.sparkContext.setLogLevel("OFF")
from rustllm.integrations.spark import scheduler
make(scheduler(spark))
spark.stop()
""",
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    pick = random.Random(1)
    path = tmp_path_factory.mktemp("source") / "in.jsonl"
    words = ["alpha", "beta", "gamma", "δέλτα", "数"]
    with path.open("w", encoding="utf-8") as file:
        for i in range(400):
            text = " ".join(pick.choices(words, k=pick.randint(1, 30)))
            file.write(json.dumps({"text": f"{text} fatal" if i == 200 else text}) + "\n")
    return path


def digest(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != ".lock"
    }


@pytest.fixture(scope="module")
def local(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "corpus"
    corpus.tokenize([source], out, ByteTokenizer(["<end>"]), unit_bytes=3000, mode="inline")
    return digest(out)


def run(engine, source, out, marker, tmp_path):
    packages, program = ENGINES[engine]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    script = tmp_path / "make.py"
    script.write_text(HEAD + program)
    return subprocess.run(
        [sys.executable, str(script), str(source), str(out), str(marker)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "HF_HOME": str(tmp_path / "hf"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONWARNINGS": "ignore",
        },
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_the_bytes_are_those_of_a_local_run(engine, source, local, tmp_path):
    out = tmp_path / "corpus"
    done = run(engine, source, out, tmp_path / "none", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "made 400" in done.stdout
    assert digest(out) == local


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_killed_half_way_changes_nothing(engine, source, local, tmp_path):
    out, marker = tmp_path / "corpus", tmp_path / "died"
    done = run(engine, source, out, marker, tmp_path)
    assert marker.exists()
    if done.returncode != 0:
        # An engine that gives up says so; the next call goes on with what is committed.
        assert list((out / "units").iterdir())
        done = run(engine, source, out, marker, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert digest(out) == local


def test_a_scheduler_that_leaves_units_out_is_noticed(source, tmp_path):
    def lazy(runner, units):
        for unit in units[:-2]:
            yield runner(unit)

    from rustllm.errors import StateError

    out = tmp_path / "corpus"
    with pytest.raises(StateError, match="2 units were not done"):
        corpus.tokenize([source], out, ByteTokenizer(), unit_bytes=3000, scheduler=lazy)
    made = corpus.tokenize([source], out, ByteTokenizer(), unit_bytes=3000)
    assert len(made) == 400


def test_the_tokenizer_that_dies_is_the_other_one_otherwise(tmp_path):
    marker = tmp_path / "died"
    marker.touch()
    fatal, tame = FatalTokenizer(marker, "fatal"), ByteTokenizer(["<end>"])
    assert fatal.encode("fatal") == tame.encode("fatal")
    assert fatal.encode_batch_flat(["fatal"]).ids.tolist() == tame.encode("fatal")
