"""Instructions of the hot kernels, which a busy machine does not change: callgrind counts them."""

import importlib.util
import shutil
from pathlib import Path

import rustllm

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def gate():
    """The module that counts."""
    spec = importlib.util.spec_from_file_location("gate", TOOLS / "instruction_gate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Kernels:
    """One repetition of each workload of ``tools/instruction_workloads.py``."""

    params = sorted(gate().workloads())
    param_names = ["workload"]
    unit = "instructions"
    timeout = 600

    def setup(self, workload):
        if shutil.which("valgrind") is None:
            raise NotImplementedError  # asv leaves it out

    def track_instructions(self, workload):
        module = gate()
        # The commit under test, not the tree that this file lies in.
        package = Path(rustllm.__file__).parents[1]
        return module.measure(workload, module.workloads()[workload], package)
