"""The code blocks of README and guides run, and their shell commands are real ones."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from paths import ROOT

import rustllm
from rustllm.cli import COMMANDS, build_parser

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "docs/guides").glob("*.md"))
PAGES = [p for p in PAGES if p.exists()]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    return [body for kind, body in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def name_of(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_blocks_run_in_order(page, tmp_path):
    # One program a page: a block may use what an earlier one made.
    if "load_model" in page.read_text("utf-8") and not hasattr(rustllm, "load_model"):
        pytest.skip("no engine yet")
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks(page, "python")), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def commands_of(page):
    """Every `rustllm ...` in the page's shell blocks, pipes and redirections cut off."""
    for body in blocks(page, "sh"):
        for line in body.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||\||;", line.split(" #")[0]):
                words = shlex.split(part)
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words.pop(0)
                if words and words[0] == "rustllm":
                    cut = next((i for i, w in enumerate(words) if w[0] in "<>"), len(words))
                    yield words[1:cut]


ALL_COMMANDS = [(page, words) for page in PAGES for words in commands_of(page)]


@pytest.mark.parametrize(
    ("page", "words"), ALL_COMMANDS, ids=[f"{name_of(p)}: {shlex.join(w)}" for p, w in ALL_COMMANDS]
)
def test_shell_commands_have_arguments_that_exist(page, words):
    command = next((w for w in words if not w.startswith("-")), None)
    args = build_parser(command).parse_args(words)
    assert args.command in COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_a_commands_help_have_arguments_that_exist(name):
    text = build_parser(name)._subparsers._group_actions[0].choices[name].description
    examples = [line.strip() for line in text.split("examples:")[1].splitlines() if line.strip()]
    assert examples
    for line in examples:
        for part in re.split(r"\|", line):
            words = shlex.split(part)
            if words[0] == "rustllm":
                cut = next((i for i, w in enumerate(words) if w[0] in "<>"), len(words))
                assert build_parser(words[1]).parse_args(words[1:cut]).command in COMMANDS


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8")):
            generated = "_generated/" in target
            assert generated or (page.parent / target).exists(), f"{name_of(page)}: {target}"
