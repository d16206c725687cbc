"""Many prompts in one run, and how likely a text is."""

import io
import json
import math
import sys
from types import SimpleNamespace

import pytest

from rustllm.cli import main
from rustllm.errors import ArgumentError, ContextLengthError


@pytest.fixture(autouse=True)
def small(monkeypatch, talker):
    for command in ("generate", "score"):
        monkeypatch.setattr(f"rustllm.cli.{command}.open_model", lambda args, output: talker)
    return talker


def rows(capsys):
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row["schema"] == "rustllm.generate.batch" for row in found)
    return {row["index"]: row for row in found}


def alone(capsys, prompt, *options):
    assert main(["generate", "--json", *options, prompt]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_batch_gives_each_line_the_text_it_gets_alone(capsys, tmp_path):
    prompts = ["the c", "the cat s", "t", "ran. the"]
    (tmp_path / "prompts.txt").write_text("\r\n".join(prompts) + "\n\n")
    options = ["--temperature", "0.8", "--seed", "3", "-n", "6"]
    expected = [alone(capsys, prompt, *options) for prompt in prompts]
    for sequences in ("1", "2", "8"):
        file = str(tmp_path / "prompts.txt")
        assert main(["generate", "--batch", file, "--sequences", sequences, *options]) == 0
        found = rows(capsys)
        assert sorted(found) == [0, 1, 2, 3]
        for i, one in enumerate(expected):
            for field in ("prompt", "text", "ids", "finish_reason"):
                assert found[i][field] == one[field]


def test_lines_of_json_have_their_own_settings(capsys, tmp_path):
    lines = ['"the c"', '{"prompt": "the c", "max_tokens": 2, "stop": ["zz"]}']
    lines.append('{"messages": [{"role": "user", "content": "."}]}')
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    options = ["--batch", str(tmp_path / "prompts.jsonl"), "--temperature", "0", "-n", "4"]
    assert main(["generate", *options]) == 0
    found = rows(capsys)
    assert [len(found[i]["ids"]) for i in range(3)] == [4, 2, 4]
    assert found[0]["text"] == "at c" and found[2]["text"] == "at c"  # the latter after "the c"
    assert found[2]["prompt"] is None


def test_a_model_with_a_template_answers_a_batch(capsys, tmp_path, small):
    small.has_chat_template = True
    (tmp_path / "prompts.txt").write_text(".\n")
    options = ["--batch", str(tmp_path / "prompts.txt"), "--temperature", "0", "-n", "3"]
    main(["generate", *options])
    assert rows(capsys)[0]["text"] == "at "  # what follows "the c"
    main(["generate", *options, "--raw"])
    assert rows(capsys)[0]["text"] in (" th", " ca")


def test_one_text_that_fails_does_not_end_the_others(capsys, tmp_path):
    (tmp_path / "prompts.txt").write_text("the c\n" + "the cat " * 9 + "\nt\n")
    options = ["--batch", str(tmp_path / "prompts.txt"), "--context", "20", "-n", "4"]
    assert main(["generate", *options]) == ContextLengthError.exit_code
    found = rows(capsys)
    assert sorted(found) == [0, 1, 2]
    assert "error" in found[1] and len(found[0]["ids"]) == len(found[2]["ids"]) == 4


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "line 2: not JSON"),
        ("3", "int is neither a string nor an object"),
        ("{}", "needs either prompt or messages"),
        ('{"prompt": "a", "messages": []}', "needs either prompt or messages"),
        ('{"prompt": 3}', "prompt is not a string"),
        ('{"prompt": "a", "max_token": 3}', "unknown setting 'max_token'"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_told_before_a_model_is_loaded(capsys, tmp_path, monkeypatch, line, what):
    monkeypatch.setattr("rustllm.cli.generate.open_model", lambda args, output: 1 / 0)
    (tmp_path / "prompts.jsonl").write_text('"fine"\n' + line)
    status = main(["generate", "--batch", str(tmp_path / "prompts.jsonl")])
    assert status == ArgumentError.exit_code
    assert what in capsys.readouterr().err


def test_a_batch_takes_the_place_of_a_prompt(capsys, tmp_path):
    assert main(["generate", "--batch", str(tmp_path / "x"), "text"]) == ArgumentError.exit_code
    assert "leave one of them out" in capsys.readouterr().err


def test_a_batch_reads_stdin(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"the c\nthe c\n")))
    assert main(["generate", "--batch", "-", "--temperature", "0", "-n", "2"]) == 0
    assert [row["text"] for row in rows(capsys).values()] == ["at", "at"]


def test_score_prints_three_figures(capsys, small):
    assert main(["score", "the cat"]) == 0
    scores = small.score("the cat")
    found = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert found == {
        "tokens": "7",
        "log-probability": f"{scores.total:.4f}",
        "perplexity": f"{scores.perplexity:.4f}",
    }


def test_score_as_a_document(capsys, small):
    assert main(["score", "--json", "--logprobs", "2", "the"]) == 0
    found = json.loads(capsys.readouterr().out)
    scores = small.score("the", top_logprobs=2)
    assert found["schema"] == "rustllm.score" and found["ids"] == list(scores.ids)
    assert found["logprobs"] == [None, *scores.logprobs.tolist()[1:]]
    assert math.isclose(found["perplexity"], scores.perplexity)
    assert [len(top) for top in found["top_logprobs"]] == [0, 2, 2]


def test_one_token_has_no_perplexity_but_a_document(capsys):
    assert main(["score", "--json", "t"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["perplexity"] is None and found["logprobs"] == [None]


def test_a_text_longer_than_the_context_is_refused(capsys):
    assert main(["score", "--context", "3", "the cat"]) == ContextLengthError.exit_code
    capsys.readouterr()
