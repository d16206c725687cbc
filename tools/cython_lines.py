"""Which lines of Cython ran: gcc's own counters, read back to the lines they were written on.

A build with ``RUSTLLM_BUILD=coverage`` counts every block of the generated C (``--coverage``), on
whatever thread it runs, with or without the GIL, in children and after failed allocations, and adds
the counts to a ``.gcda`` file when a process ends. ``gcov`` gives them a line of C at a time.
Cython writes before the code of each statement where it comes from:

    /* "rustllm/_core/arrays.pyx":63
     * ...
     */
    __pyx_t_1 = (__pyx_v_size < 0);

What follows, up to the next such mark, is code of that line. Its **first** line of C decides
whether the line ran: what comes after may be clean-up that others jump to. A file that several
modules share (functions of a ``.pxd``) ran where it ran in one of them.

What counts as a line of code: each logical line (a statement over several lines is one) for which C
was made that the compiler kept. Not counted are the headers of functions and classes, decorators,
declarations without a value, docstrings, ``else:``, ``try:``, ``finally:``, code that Cython makes
on its own (conversion of arguments, clean-up at the end of a function), and lines that say
``# pragma: no cover``.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path

MARK = re.compile(r'^\s+/\* "(rustllm/[^"]+\.p(?:yx|xd|xi))":(\d+)$')
# Texts, comments, joined lines, brackets and ends of lines: enough to know which lines belong
# together.
PIECE = re.compile(
    r'"""(?:\\.|.)*?"""|\'\'\'(?:\\.|.)*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    r"|#[^\n]*|\\\n|[\[({})\]]|\n",
    re.DOTALL,
)
NO_STATEMENT = re.compile(
    r"r?[\"']|@|(?:async\s+)?def\b|class\b|c(?:p|type)?def\b[^=]*$|cp?def\b.*:$"
    r"|(?:else|try|finally)\s*:|.*#\s*pragma: no cover"
)

Counts = dict[str, dict[int, bool]]  # for every file, the lines of code and whether they ran


def logical_lines(text: str) -> dict[int, tuple[int, str]]:
    """For every line: where its statement begins, and the statement without comments.

    >>> logical_lines("a = [\\n  1]  # one\\nb = 2\\n")
    {1: (1, 'a = [ 1]'), 2: (1, 'a = [ 1]'), 3: (3, 'b = 2')}
    """
    found: dict[int, tuple[int, str]] = {}
    line, first, depth, begin, words = 1, 1, 0, 0, ""
    for piece in PIECE.finditer(text):
        what = piece[0]
        words += text[begin : piece.start()]
        if what[0] == "#":
            words += what if "pragma: no cover" in what else ""
        elif what[-1] == "\n":  # of a joined line too
            words += " "
        else:
            words += what
        begin = piece.end()
        depth += (what in "[({") - (what in "])}")
        if what == "\n" and depth == 0:
            statement = " ".join(words.split())
            found.update(dict.fromkeys(range(first, line + 1), (first, statement)))
            first, words = line + 1, ""
        line += what.count("\n")
    return found


def marked_blocks(generated: Path) -> list[tuple[tuple[str, int], range]]:
    """The lines of C after each mark, and the line of Cython that it names."""
    blocks = []
    now: tuple[str, int] | None = None
    begin = 0
    for number, text in enumerate(generated.read_text("utf-8").split("\n"), 1):
        mark = MARK.match(text)
        if mark or text.startswith("}") or "/* function exit code */" in text:
            if now is not None:
                blocks.append((now, range(begin, number)))
            now = (mark[1], int(mark[2])) if mark else None
            begin = number
    return blocks


def gcov(objects: list[Path]) -> dict[str, dict[int, int]]:
    """For every source of compiled modules, how often each of its lines ran."""
    counts: dict[str, dict[int, int]] = defaultdict(dict)
    for one in objects:  # one at a time: the answer for a module has megabytes
        command = ["gcov", "--json-format", "--stdout", str(one)]
        answer = subprocess.run(command, capture_output=True, check=True).stdout
        for file in json.loads(answer)["files"]:
            lines = counts[file["file"]]
            for line in file["lines"]:
                number = line["line_number"]
                lines[number] = max(lines.get(number, 0), line["count"])
    return counts


def lines_run(root: Path) -> tuple[Counts, Counts]:
    """The lines of Cython in a tree built for counting, then those of its C headers.

    Parameters
    ----------
    root : pathlib.Path
        Of a tree compiled in place there with ``RUSTLLM_BUILD=coverage``; what ran is beside the
        objects in ``build``.
    """
    counts = gcov(sorted(root.glob("build/temp*/rustllm/**/*.gcno")))
    cython: Counts = defaultdict(dict)
    headers: Counts = {}
    statements: dict[str, dict[int, tuple[int, str]]] = {}
    for source, lines in sorted(counts.items()):
        if source.endswith(".h") and source.startswith("rustllm/"):
            headers[source] = {number: many > 0 for number, many in lines.items()}
        if not source.endswith(".c"):
            continue
        for (name, number), block in marked_blocks(root / source):
            if name not in statements:
                statements[name] = logical_lines((root / name).read_text("utf-8"))
            first, statement = statements[name][number]
            if NO_STATEMENT.match(statement):
                continue
            for place in block:
                if place in lines:
                    cython[name][first] = cython[name].get(first, False) or lines[place] > 0
                    break
    return dict(cython), headers
