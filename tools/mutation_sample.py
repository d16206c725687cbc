#!/usr/bin/env python3
"""Change one place of the Python code at a time, and see whether its own tests notice.

    python tools/mutation_sample.py                    # 120 changes over the floors below
    python tools/mutation_sample.py -n 20 plugins      # 20 in modules whose path holds "plugins"
    python tools/mutation_sample.py --only 41,87       # these of the sample again, with their code

The changes are drawn with ``--seed`` from all that can be made: a comparison or an operator becomes
another, a condition is turned round, a number grows by one, a result becomes ``None``, a call whose
result nobody takes, an assignment or a ``raise`` is left out, ``break`` and ``continue`` change
places. Texts, annotations and what a module does when it is imported are left alone. Each is made
in a copy of the tree and the tests named in ``FLOORS`` are run until the first that fails; taking
five times as long as without a change counts as noticed, and is printed. Prints what survived and
the share that was killed; exit status 1 if that is below ``--least`` per cent. Needs the compiled
modules in place and the extra ``test``.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Modules, and the tests that are theirs.
FLOORS = [
    ("rustllm/errors.py", "tests/unit/test_errors.py tests/unit/test_error_context.py"),
    ("rustllm/error_*.py", "tests/unit/test_error_context.py tests/unit/test_errors.py"),
    ("rustllm/config.py", "tests/unit/test_config.py"),
    ("rustllm/version.py", "tests/property/test_version.py"),
    ("rustllm/parallel.py", "tests/unit/test_parallel.py"),
    ("rustllm/log.py", "tests/unit/test_log.py"),
    ("rustllm/allocators.py", "tests/unit/memory"),
    ("rustllm/iterators/*.py", "tests/unit/iterators"),
    ("rustllm/stream/*.py", "tests/unit/stream"),
    ("rustllm/types/*.py", "tests/unit/types tests/unit/iterators"),
    ("rustllm/traits/*.py", "tests/unit/traits tests/unit/models/test_generation_engine.py"),
    ("rustllm/plugins/*.py", "tests/unit/plugins tests/property/test_plugin_manager_machine.py"),
    ("rustllm/serialize/*.py", "tests/unit/serialize"),
    ("rustllm/bench/*.py", "tests/unit/bench"),
    ("rustllm/loaders/*.py", "tests/unit/loaders"),
    ("rustllm/constrain/*.py", "tests/unit/constrain"),
]
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def bodies(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes inside functions, but for annotations, defaults and decorators."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in function.body:
                yield from walk(statement)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return  # a function of its own: it comes with the others
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from walk(child)


def change(node: ast.AST) -> str | None:
    """Change `node` in place and say how; None when there is nothing to change."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        old = type(node.ops[0])
        node.ops = [COMPARISONS[old]()]
        return f"{old.__name__} -> {COMPARISONS[old].__name__}"
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in OPERATORS:
        old_op = type(node.op)
        # A text is joined with +, or filled in with %: that would only raise a TypeError.
        sides = [getattr(node, "left", None), getattr(node, "right", None)]
        if any(isinstance(side, ast.JoinedStr) for side in sides):
            return None
        node.op = OPERATORS[old_op]()
        return f"{old_op.__name__} -> {OPERATORS[old_op].__name__}"
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return "condition turned round"
    if isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
        return f"{node.value - 1} -> {node.value}"
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        node.value = not node.value
        return f"{not node.value} -> {node.value}"
    if isinstance(node, ast.Return) and node.value is not None:
        if isinstance(node.value, ast.Constant) and node.value.value is None:
            return None
        node.value = ast.Constant(None)
        return "returns None"
    return None


def replacement(node: ast.AST) -> tuple[ast.stmt, str] | None:
    """A statement to stand in place of `node`."""
    if isinstance(node, ast.Break):
        return ast.Continue(), "break -> continue"
    if isinstance(node, ast.Continue):
        return ast.Break(), "continue -> break"
    if isinstance(node, ast.Raise):
        return ast.Pass(), "raise left out"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.Pass(), "call left out"
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        return ast.Pass(), "assignment left out"
    return None


def is_of_types_alone(node: ast.AST) -> bool:
    """Whether a checker of types reads this, and nobody else."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def places(source: str) -> list[int]:
    """Numbers of the nodes of a module that can be changed."""
    tree = ast.parse(source)
    skipped = {id(n) for top in ast.walk(tree) if is_of_types_alone(top) for n in ast.walk(top)}
    return [
        at
        for at, node in enumerate(bodies(tree))
        if id(node) not in skipped and (change(copy.copy(node)) or replacement(node))
    ]


def changed(source: str, at: int) -> tuple[int, str, str]:
    """One change made: its line, what it is, the new source."""
    tree = ast.parse(source)
    node = next(node for i, node in enumerate(bodies(tree)) if i == at)
    found = replacement(node)
    if found is None:
        what = change(node)
    else:
        new, what = found
        for parent in ast.walk(tree):
            for field in ("body", "orelse", "finalbody"):
                block = getattr(parent, field, None)
                if isinstance(block, list) and any(child is node for child in block):
                    block[[child is node for child in block].index(True)] = new
    return getattr(node, "lineno", 0), str(what), ast.unparse(ast.fix_missing_locations(tree))


def copy_tree(folder: Path) -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    compiled = [str(p.relative_to(ROOT)) for p in (ROOT / "rustllm").rglob("*.so")]
    for name in [*filter(None, names.split("\0")), *compiled]:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def passes(folder: Path, tests: str, seconds: float) -> bool | None:
    """Whether the tests pass; None when they take too long."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    if (ROOT.parent / "shared").is_dir():
        environment.setdefault("RUSTLLM_SHARED", str(ROOT.parent / "shared"))
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
        + ["--hypothesis-seed=0", *tests.split()],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def main(arguments: list[str]) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of paths of modules (default: all floors)")
    parser.add_argument("-n", type=int, default=120, help="changes to draw (default: 120)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--least", type=float, default=80.0, help="per cent (default: 80)")
    parser.add_argument("--only", help="numbers of the sample, with commas")
    options = parser.parse_args(arguments)

    every = []
    seen = set()
    for pattern, tests in FLOORS:
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            if name in seen or not any(part in name for part in options.names or [""]):
                continue
            seen.add(name)
            every += [(name, tests, at) for at in places(path.read_text("utf-8"))]
    sample = random.Random(options.seed).sample(every, min(options.n, len(every)))
    numbers = [int(n) for n in options.only.split(",")] if options.only else range(len(sample))
    print(f"{len(numbers)} of {len(every)} changes in {len(seen)} modules", flush=True)

    killed = 0
    taken: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="rustllm-mutants-") as name:
        folder = Path(name)
        copy_tree(folder)
        for number in numbers:
            module, tests, at = sample[number]
            if tests not in taken:
                start = time.monotonic()
                if not passes(folder, tests, 1200):
                    print(f"these fail as they are: {tests}", file=sys.stderr)
                    return 2
                taken[tests] = time.monotonic() - start
            original = (folder / module).read_text("utf-8")
            line, what, source = changed(original, at)
            (folder / module).write_text(source, "utf-8")
            survived = passes(folder, tests, 5 * taken[tests] + 20)
            (folder / module).write_text(original, "utf-8")
            killed += not survived
            if survived is not False:
                how = "survived" if survived else "too long"
                text = (ROOT / module).read_text("utf-8").splitlines()[line - 1].strip()
                print(f"{number:4d} {how}  {module}:{line}  {what}:  {text}", flush=True)
    share = 100 * killed / max(1, len(numbers))
    print(f"{killed} of {len(numbers)} killed: {share:.1f} %")
    return 0 if share >= options.least else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
