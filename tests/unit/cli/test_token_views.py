"""``encode --show``, ``encode --html`` and ``compare``: what is printed and written."""

import json

import pytest

from rustllm import BpeTrainer
from rustllm.cli import main

TEXT = "so it goes\nso it is"


@pytest.fixture(autouse=True)
def vocabularies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, size in (("small", 260), ("large", 275)):
        BpeTrainer(size, special_tokens=["<end>"]).train([TEXT] * 4).save(f"{name}.json")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def test_show_puts_bars_where_nobody_looks(capsys):
    assert main(["encode", "--show", "-t", "large.json", TEXT]) == 0
    assert capsys.readouterr().out == "so│ it│ goes│↵\nso│ it│ is\n"


def test_show_colours_a_terminal_and_obeys_no_color(capsys, monkeypatch):
    monkeypatch.setattr("rustllm.cli.output._is_terminal", lambda stream: True)
    monkeypatch.setenv("TERM", "xterm")
    main(["encode", "--show", "-t", "large.json", "so it"])
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    main(["encode", "--show", "-t", "large.json", "so it"])
    assert "\x1b" not in capsys.readouterr().out


def test_show_as_a_document(capsys):
    main(["encode", "--show", "--json", "--special", "-t", "large.json", "so<end>"])
    found = json.loads(capsys.readouterr().out)
    assert [(t["text"], t["start"], t["end"]) for t in found["tokens"]] == [
        ("so", 0, 2),
        ("<end>", 2, 7),
    ]


def test_html_writes_a_page(capsys, tmp_path):
    assert main(["encode", "--html", "page.html", "-t", "large.json", TEXT]) == 0
    assert capsys.readouterr().out == "page.html: 7 tokens\n"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.count('data-t="') == 7
    assert main(["encode", "--html", "no/page.html", "-t", "large.json", TEXT]) == 3


def test_compare_tells_the_cost(capsys):
    assert main(["compare", "small.json", "large.json", TEXT]) == 0
    printed = capsys.readouterr().out
    assert "large.json takes -" in printed and "‹" in printed
    main(["compare", "small.json", "large.json", TEXT, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["cost"] == found["right"]["tokens"] - found["left"]["tokens"] < 0
    assert found["cost"] == sum(d["cost"] for d in found["differences"])
    assert found["vocabulary"]["only_left"] == 0


def test_compare_prints_as_many_differences_as_asked_for_and_counts_the_rest(capsys):
    main(["compare", "small.json", "large.json", TEXT, "--json"])
    n = len(json.loads(capsys.readouterr().out)["differences"])
    assert n > 1
    main(["compare", "small.json", "large.json", TEXT, "--limit", "1"])
    printed = capsys.readouterr().out
    assert f"and {n - 1} more (--limit)" in printed and printed.count("‹") < n * 2
    main(["compare", "small.json", "large.json", TEXT, "--limit", str(n)])
    assert "more (--limit)" not in capsys.readouterr().out


def test_compare_with_itself_prints_no_difference(capsys):
    main(["compare", "small.json", "small.json", TEXT])
    assert "‹" not in capsys.readouterr().out
