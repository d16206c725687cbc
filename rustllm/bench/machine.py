"""The facts without which a figure means nothing: machine, system, versions."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

__all__ = ["machine_facts"]


def machine_facts() -> dict[str, Any]:
    """Return processor, cores, instruction set level in use, system, and versions.

    Examples
    --------
    >>> from rustllm.bench import machine_facts
    >>> sorted(machine_facts())
    ['cores', 'numpy', 'processor', 'python', 'rustllm', 'simd', 'system']
    """
    import numpy

    from rustllm import __version__
    from rustllm._core import dispatch

    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": _processor(),
        "cores": len(affinity(0)) if affinity is not None else os.cpu_count(),
        "simd": dispatch.current_level(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "numpy": numpy.__version__,
        "rustllm": __version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "CPU part")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
