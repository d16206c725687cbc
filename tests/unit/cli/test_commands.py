"""Each command against small reference implementations: what goes to which stream, and how."""

import io
import json
import sys

import pytest

from rustllm.cli import main
from rustllm.errors import ContextLengthError
from rustllm.testing import ByteTokenizer


@pytest.fixture(autouse=True)
def small(monkeypatch, talker):
    """Every command gets the small model and its byte tokenizer."""
    tokenizer = ByteTokenizer()
    for command in ("generate", "chat"):
        monkeypatch.setattr(f"rustllm.cli.{command}.open_model", lambda args, output: talker)
    for command in ("encode", "decode", "count"):
        monkeypatch.setattr(
            f"rustllm.cli.{command}.open_tokenizer", lambda choice, output: tokenizer
        )
    return talker


def give(monkeypatch, raw: bytes, terminal: bool = False):
    stream = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8")
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdin", stream)


def document(capsys) -> dict:
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    found = json.loads(printed.out)
    assert found["schema_version"] == 1
    return found


def test_generate_streams_text_and_ends_the_line(capsys):
    assert main(["generate", "--temperature", "0", "-n", "5", "the c"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "at ca\n" and printed.err == ""


def test_generate_writes_each_piece_when_it_comes(capsys, monkeypatch, small):
    seen = []
    monkeypatch.setattr("rustllm.cli.output.Output.write", lambda self, data: seen.append(data))
    main(["generate", "--temperature", "0", "-n", "3", "the c"])
    assert len(seen) >= 3 and "".join(seen) == "at \n"


def test_generate_passes_on_what_keys_and_values_are_kept_in(capsys, monkeypatch, small):
    seen = []
    monkeypatch.setattr(
        "rustllm.cli.generate.open_model", lambda args, output: seen.append(args.kv_dtype) or small
    )
    main(["generate", "--kv-dtype", "int8", "-n", "1", "the c"])
    main(["generate", "-n", "1", "the c"])
    assert seen == ["int8", None]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["generate", "--kv-dtype", "f16", "the c"])
    assert "'bfloat16', 'int8'" in capsys.readouterr().err


def test_generate_as_a_document(capsys):
    assert main(["generate", "--json", "--seed", "1", "-n", "4", "the c"]) == 0
    found = document(capsys)
    assert found["schema"] == "rustllm.generate"
    assert len(found["ids"]) == 4 == len(found["logprobs"])
    assert found["text"] and set(found["seconds"]) == {"load", "first", "all"}


def test_generate_tells_log_probabilities_and_how_it_ended(capsys):
    main(["generate", "--json", "--temperature", "0", "-n", "4", "--logprobs", "2", "the c"])
    found = json.loads(capsys.readouterr().out)
    assert found["finish_reason"] == "length"
    assert [len(top) for top in found["top_logprobs"]] == [2] * 4
    assert [top[0][0] for top in found["top_logprobs"]] == found["ids"]
    assert [top[0][1] for top in found["top_logprobs"]] == found["logprobs"]


def test_generate_with_a_draft_says_the_same(capsys, monkeypatch, small):
    def named(args, output):
        assert args.model == "a smaller one"
        return small

    monkeypatch.setattr("rustllm.cli.resolve.open_model", named)
    options = ["--json", "--seed", "3", "-n", "40", "--context", "60"]
    main(["generate", *options, "the cat"])
    plain = json.loads(capsys.readouterr().out)
    main(["generate", *options, "--draft", "lookup", "--draft-tokens", "3", "the cat"])
    found = json.loads(capsys.readouterr().out)
    assert (found["ids"], found["logprobs"]) == (plain["ids"], plain["logprobs"])
    assert 0 <= found["right"] <= found["guessed"]
    main(["generate", *options, "--draft", "a smaller one", "the cat"])
    assert json.loads(capsys.readouterr().out)["ids"] == plain["ids"]


def test_penalties_cuts_and_the_shift_of_the_context(capsys):
    options = ["--json", "--temperature", "0", "-n", "30"]
    main(["generate", *options, "the c"])
    plain = json.loads(capsys.readouterr().out)
    penalties = ["--repeat-penalty", "1.5", "--presence-penalty", "2", "--frequency-penalty", "2"]
    main(["generate", *options, *penalties, "--repeat-last-n", "-1", "--typical", "0.9", "the c"])
    found = json.loads(capsys.readouterr().out)
    assert len(set(found["ids"])) > len(set(plain["ids"]))
    main(["generate", *options, "--context", "12", "the c"])
    assert json.loads(capsys.readouterr().out)["finish_reason"] == "context"
    main(["generate", *options, "--context", "12", "--context-shift", "2", "the c"])
    assert json.loads(capsys.readouterr().out)["finish_reason"] == "length"


def test_generate_stops_before_a_stop_text(capsys):
    main(["generate", "--temperature", "0", "-n", "50", "--stop", "t ", "the c"])
    assert capsys.readouterr().out == "a\n"


def test_generate_asks_a_model_that_has_a_chat_template(capsys, small):
    small.has_chat_template = True
    main(["generate", "--temperature", "0", "-n", "3", "--json", "."])
    asked = document(capsys)
    assert asked["raw"] is False and asked["text"] == "at "  # what follows "the c"
    main(["generate", "--temperature", "0", "-n", "3", "--json", "--raw", "."])
    continued = document(capsys)
    assert continued["raw"] is True and continued["text"] in (" th", " ca")


def test_generate_reads_stdin_and_files(capsys, monkeypatch, tmp_path):
    options = ["--temperature", "0", "-n", "3"]
    main(["generate", *options, "the c"])
    expected = capsys.readouterr().out
    give(monkeypatch, b"the c")
    main(["generate", *options, "-"])
    assert capsys.readouterr().out == expected
    (tmp_path / "prompt.txt").write_text("the c")
    main(["generate", *options, "--file", str(tmp_path / "prompt.txt")])
    assert capsys.readouterr().out == expected


def test_a_prompt_longer_than_the_context_is_a_typed_error(capsys):
    assert main(["generate", "--context", "3", "the c"]) == ContextLengthError.exit_code
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("rustllm: error: ")


def test_timing_goes_to_a_terminal_only(capsys, monkeypatch):
    monkeypatch.setattr("rustllm.cli.output._is_terminal", lambda stream: stream is sys.stderr)
    main(["generate", "-n", "2", "the c"])
    printed = capsys.readouterr()
    assert "tokens in" in printed.err and "tokens in" not in printed.out
    main(["generate", "--quiet", "-n", "2", "the c"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("value", "colour"), [("", True), ("1", False)])
def test_no_color_is_honoured(capsys, monkeypatch, value, colour):
    monkeypatch.setenv("NO_COLOR", value)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("rustllm.cli.output._is_terminal", lambda stream: stream is sys.stderr)
    main(["generate", "-n", "2", "the c"])
    assert ("\x1b[" in capsys.readouterr().err) is colour


def test_chat_once(capsys):
    assert main(["chat", "--temperature", "0", "-n", "3", "hello"]) == 0
    assert capsys.readouterr().out == "at \n"


def test_chat_as_a_document_has_the_whole_conversation(capsys):
    main(["chat", "--json", "--system", "be brief", "--temperature", "0", "-n", "3", "hello"])
    found = document(capsys)
    assert found["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "at "},
    ]


def test_chat_takes_a_turn_a_line_from_a_pipe(capsys, monkeypatch):
    give(monkeypatch, b"one\n\ntwo\n/reset\nthree\n/exit\n")
    main(["chat", "--json", "--temperature", "0", "-n", "1"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    asked = [[m["content"] for m in d["messages"] if m["role"] == "user"] for d in lines]
    assert asked == [["one"], ["one", "two"], ["three"]]


def test_chat_at_a_terminal_asks_until_exit(capsys, monkeypatch):
    answers = iter(["hello", "", "/reset", "again", "/exit", "never"])
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or next(answers))
    give(monkeypatch, b"", terminal=True)
    assert main(["chat", "--temperature", "0", "-n", "3"]) == 0
    assert capsys.readouterr().out == "at \nat \n"
    assert asked == ["> "] * 5


def test_chat_ends_with_the_input(capsys, monkeypatch):
    def end(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    give(monkeypatch, b"", terminal=True)
    assert main(["chat"]) == 0


def test_an_interrupted_chat_is_130(capsys, monkeypatch):
    def interrupt(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    give(monkeypatch, b"", terminal=True)
    assert main(["chat"]) == 130
    assert capsys.readouterr().err == ""


def test_encode_and_decode_are_inverse(capsys, monkeypatch):
    text = "naïve 😀\r\ntext"
    assert main(["encode", text]) == 0
    ids = capsys.readouterr().out
    assert ids.endswith("\n") and [int(i) for i in ids.split()] == ByteTokenizer().encode(text)
    give(monkeypatch, ids.encode())
    assert main(["decode", "-"]) == 0
    assert capsys.readouterr().out == text


def test_encode_documents_feed_decode(capsys, monkeypatch):
    main(["encode", "--json", "ab"])
    found = document(capsys)
    assert found["schema"] == "rustllm.encode" and found["count"] == 2
    give(monkeypatch, json.dumps(found).encode())
    main(["decode", "--json", "-"])
    decoded = document(capsys)
    assert decoded["text"] == "ab" and bytes.fromhex(decoded["bytes_hex"]) == b"ab"


def test_encode_pieces_shows_the_bytes_of_each_id(capsys):
    main(["encode", "--pieces", "é"])
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows] == [r"b'\xc3'", r"b'\xa9'"]


def test_decode_writes_bytes_that_are_no_text(capfdbinary):
    ids = ByteTokenizer().encode("é")[:1]
    main(["decode", *map(str, ids)])
    assert capfdbinary.readouterr().out == b"\xc3"


def test_count_one_input_is_one_number(capsys):
    main(["count", "abc"])
    assert capsys.readouterr().out == "3\n"


def test_count_several_inputs_has_a_line_each_and_the_sum(capsys, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("12345")
    give(monkeypatch, b"12")
    main(["count", "abc", "-", "--file", str(tmp_path / "a.txt")])
    assert capsys.readouterr().out.splitlines() == [
        " 3  text 1",
        " 2  stdin",
        f" 5  {tmp_path / 'a.txt'}",
        "10  total",
    ]
    give(monkeypatch, b"12")
    main(["count", "--json", "-", "--file", str(tmp_path / "a.txt")])
    found = document(capsys)
    assert found["total"] == 7
    assert found["inputs"][0] == {"name": "stdin", "tokens": 2, "bytes": 2}


def test_progress_is_drawn_over_itself_and_removed(capsys):
    from rustllm.cli.output import ProgressBar

    with ProgressBar(visible=True) as bar:
        bar("fetching x", 0, 2_000_000)
        bar("fetching x", 2_000_000, 2_000_000)
    drawn = capsys.readouterr().err
    assert "2.0/2.0 MB 100%" in drawn
    assert drawn.endswith("\r\x1b[K") and "\n" not in drawn
    with ProgressBar(visible=False) as bar:
        bar("fetching x", 1, None)
    assert capsys.readouterr().err == ""


def test_inspect_lists_metadata_and_tensors(capsys, tmp_path):
    gguf = pytest.importorskip("gguf")
    np = pytest.importorskip("numpy")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "demo")
    writer.add_array("demo.list", list(range(10)))
    writer.add_string("demo.text", "x" * 100)
    writer.add_tensor("w", np.zeros((3, 32), np.float32))
    writer.add_tensor("q", np.zeros((2, 32), np.float32), raw_dtype=None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "general.architecture: 'demo'" in printed
    assert "demo.list: [0, 1, 2, 3, 4, 5, ...] (10)" in printed
    assert "(100 characters)" in printed
    assert "tensors (2, " in printed
    assert main(["inspect", "--tensors", "--full", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "x" * 100 in printed and "3 x 32" in printed and "7, 8, 9]" in printed
    assert main(["inspect", "--json", str(path)]) == 0
    found = document(capsys)
    assert found["format"] == "GGUF" and found["file_bytes"] == path.stat().st_size
    assert found["metadata"]["demo.list"] == {"count": 10, "first": [0, 1, 2, 3, 4, 5]}
    assert found["tensors"][0]["shape"] == [3, 32] and found["tensors"][0]["bytes"] == 384


def test_inspect_reads_safetensors(capsys, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    np = pytest.importorskip("numpy")
    path = tmp_path / "tiny.bin"  # the name does not matter
    safetensors.save_file({"w": np.ones((2, 3), np.float32)}, path, metadata={"made": "by hand"})
    assert main(["inspect", "--json", str(path)]) == 0
    found = document(capsys)
    assert found["format"] == "Safetensors"
    assert found["tensors"][0]["shape"] == [2, 3] and found["tensors"][0]["bytes"] == 24
    assert found["metadata"] == {"made": "by hand"}


def test_pull_prints_the_path_or_the_document(capsys, tmp_path, monkeypatch):
    from rustllm.models import store

    monkeypatch.setattr(store, "pull", lambda name, progress, force: tmp_path / name)
    monkeypatch.setattr(store, "verify_model", lambda name, progress: tmp_path / "checked")
    monkeypatch.setattr(store, "find_local", lambda name: None)
    assert main(["pull"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'smollm2-135m-instruct'}\n"
    main(["pull", "--verify", "gemma-3-270m", "--json"])
    found = document(capsys)
    assert found["path"] == str(tmp_path / "checked") and found["bytes"] == 253_113_024
    main(["pull", "--list"])
    assert "not here" in capsys.readouterr().out
    main(["pull", "--list", "--json"])
    assert [m["name"] for m in document(capsys)["models"]] == list(store.MODELS)
