#!/usr/bin/env python3
"""Run every command of docs/guides/first-hour.md as a newcomer would, in a folder of its own.

    python tools/first_hour.py

The commands are taken from the page in their order and given to one shell, which stops at the first
that fails. Only the address of the clone is replaced, by this repository, so that what is tested is
what is committed here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/guides/first-hour.md"
ADDRESS = "https://github.com/rustllm/rustllm"


def commands(page: str) -> list[str]:
    """Return the lines of the page's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def script(lines: list[str]) -> str:
    """Return a program for the shell that announces each command and stops at a failure."""
    parts = ["set -eu"]
    for line in lines:
        parts.append(f"printf '%s\\n' {_quoted('$ ' + line)}")
        parts.append(line.replace(ADDRESS, f"{_quoted(str(ROOT))} rustllm"))
    return "\n".join(parts)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> int:
    """Run the page."""
    lines = commands(PAGE.read_text("utf-8"))
    started = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["sh", "-c", script(lines)], cwd=folder, env={**environment, "HOME": folder}
        )
    print(f"{len(lines)} commands, {time.monotonic() - started:.0f} s, status {done.returncode}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
