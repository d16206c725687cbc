"""What a user waits for before anything happens: imports and the start of the command line."""

import os
import subprocess
import sys
import time
from pathlib import Path

import rustllm

# The new interpreters load the package that this one has, wherever it is.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(rustllm.__file__).parents[1])}


def _seconds(*command: str) -> float:
    """Median of several runs of a command that must succeed."""
    samples = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        samples.append(time.perf_counter() - started)
    return sorted(samples)[len(samples) // 2]


class ImportTime:
    """Time of a fresh interpreter that imports one thing, beyond one that imports the baseline."""

    params = ["rustllm", "rustllm.errors", "rustllm.cli"]
    param_names = ["module"]
    timeout = 120

    def track_beyond_interpreter(self, module: str) -> float:
        """Beyond `python -c pass`."""
        return _seconds(sys.executable, "-c", f"import {module}") - _seconds(
            sys.executable, "-c", "pass"
        )

    def track_beyond_numpy(self, module: str) -> float:
        """Beyond `python -c "import numpy"`, which is what the goal of 60 ms is about."""
        return _seconds(sys.executable, "-c", f"import numpy, {module}") - _seconds(
            sys.executable, "-c", "import numpy"
        )

    track_beyond_interpreter.unit = track_beyond_numpy.unit = "s"


class CommandLine:
    """Time of a whole command that does next to nothing."""

    params = ["--version", "--help", "encode --help", "pull --list"]
    param_names = ["arguments"]
    timeout = 120

    def track_seconds(self, arguments: str) -> float:
        """From start to exit."""
        return _seconds(sys.executable, "-m", "rustllm", *arguments.split())

    track_seconds.unit = "s"
