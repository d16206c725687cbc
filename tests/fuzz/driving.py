"""What every fuzzer of files does alike: its arguments, its cases one by one, and their limits."""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from rustllm.errors import RustLLMError


@contextmanager
def timed(what: str, seconds: float) -> Iterator[None]:
    """Raise TimeoutError where the block takes more processor time: others may use the machine."""
    started = time.process_time()
    try:
        yield
    finally:
        took = time.process_time() - started
        if took > seconds:
            raise TimeoutError(f"case {what} took {took:.1f} s")


def outcome_of(use: Callable[[], object]) -> str:
    """ "loaded", or the name of the typed error. Anything else is raised."""
    try:
        use()
    except RustLLMError as error:
        str(error)
        return type(error).__name__
    return "loaded"


def arguments(description: str | None, targets: Iterable[str]) -> argparse.ArgumentParser:
    """The arguments that all fuzzers have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--read-too-far", action="store_true", help="does a sanitizer watch?")
    parser.add_argument("--target", choices=sorted(targets), action="append")
    parser.add_argument("--runs", type=int, default=10_000, help="cases of each target")
    parser.add_argument("--seed", type=int, default=0, help="the first case")
    parser.add_argument("--only", type=int, help="replay one case")
    return parser


def run_cases(
    args: argparse.Namespace, targets: Iterable[str], run_case: Callable[[str, int], str]
) -> None:
    """Run what the arguments ask for, and count the outcomes."""
    if args.read_too_far:
        source, target = np.empty(4099, np.uint8), np.empty(8192, np.uint8)
        ctypes.memmove(target.ctypes.data, source.ctypes.data, source.size + 1)
        return
    for target in args.target or sorted(targets):
        counts: dict[str, int] = {}
        cases = range(args.seed, args.seed + args.runs) if args.only is None else [args.only]
        for seed in cases:
            try:
                outcome = run_case(target, seed)
            except BaseException:
                print(f"replay with: --target {target} --only {seed}", file=sys.stderr)
                raise
            counts[outcome] = counts.get(outcome, 0) + 1
        told = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
        print(f"{target}: {len(cases)} cases: {told}", flush=True)
