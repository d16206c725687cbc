"""Bad model files at the command line: a short message with the file, the place and a remedy."""

import struct

import gguf_bytes as g
import pytest

from rustllm.cli import main

F32, Q4_1 = 0, 3
ARCHITECTURE = g.field("general.architecture", g.STR, "llama")
WEIGHT = g.tensor("w", [32], F32, 0)
DATA = bytes(128)
VALID = g.gguf([ARCHITECTURE], [WEIGHT], DATA)
VOCABULARY = [
    g.field("tokenizer.ggml.model", g.STR, "gpt2"),
    g.array("tokenizer.ggml.tokens", g.STR, ["a", "b", "ab"]),
    g.array("tokenizer.ggml.token_type", g.I32, [1, 1, 1]),
    g.array("tokenizer.ggml.merges", g.STR, ["a b"]),
]

# What is wrong -> bytes, command, exit status, what the message must say besides the path.
FILES = {
    "empty": (b"", "inspect", 4, "offset 0"),
    "not a gguf": (b"# just some text, long enough to be read\n", "inspect", 4, "GGUF"),
    "header cut short": (VALID[:20], "inspect", 4, "offset"),
    "metadata cut short": (VALID[:40], "inspect", 4, "offset"),
    "tensor cut short": (VALID[:-1], "inspect", 4, "w"),
    "tensor past the end": (
        g.gguf([ARCHITECTURE], [g.tensor("w", [32], F32, 1 << 40)], DATA), "inspect", 4, "w",
    ),
    "absurd count of tensors": (g.gguf([ARCHITECTURE], n_tensors=1 << 60), "inspect", 4, "offset"),
    "absurd count of fields": (g.gguf([ARCHITECTURE], n_fields=1 << 60), "inspect", 4, "offset"),
    "absurd length of a text": (
        g.gguf([g.text("k") + struct.pack("<IQ", g.STR, 1 << 62)]), "inspect", 4, "k",
    ),
    "absurd length of an array": (
        g.gguf([g.array("k", g.U32, [1], count=1 << 61)]), "inspect", 4, "k",
    ),
    "absurd dimensions": (
        g.gguf([ARCHITECTURE], [g.tensor("w", [1 << 40, 1 << 40], F32, 0)], DATA),
        "inspect", 4, "w",
    ),
    "overlapping tensors": (
        g.gguf([ARCHITECTURE], [WEIGHT, g.tensor("v", [32], F32, 32)], bytes(256)),
        "inspect", 4, "overlap",
    ),
    "unknown block type": (
        g.gguf([ARCHITECTURE], [g.tensor("w", [32], 99, 0)], DATA), "inspect", 4, "99",
    ),
    "version of the future": (g.gguf([ARCHITECTURE], version=9), "inspect", 4, "version"),
    "big-endian": (g.gguf([], version=0x03000000), "inspect", 4, "endian"),
    "unknown architecture": (
        g.gguf([g.field("general.architecture", g.STR, "mamba9")], [WEIGHT], DATA),
        "generate", 4, "mamba9",
    ),
    "unknown pre-tokenizer": (
        g.gguf([ARCHITECTURE, *VOCABULARY, g.field("tokenizer.ggml.pre", g.STR, "pre9")]),
        "count", 4, "pre9",
    ),
    "no tokenizer": (VALID, "count", 4, "tokenizer.ggml"),
    "no hyper-parameters": (VALID, "generate", 4, "llama."),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
def test_a_bad_file_is_a_short_message_with_place_and_remedy(what, tmp_path, capsys):
    content, command, status, said = FILES[what]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    arguments = {
        "inspect": ["inspect", str(path)],
        "generate": ["generate", "-m", str(path), "x"],
        "count": ["count", "-t", str(path), "x"],
    }[command]
    assert main(arguments) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err and "internal" not in printed.err
    first, *rest = printed.err.splitlines()
    assert first.startswith("rustllm: error: ") and str(path) in first
    assert said in printed.err
    assert any(line.startswith("  hint: ") for line in rest)


def test_a_sound_file_is_shown(tmp_path, capsys):
    path = tmp_path / "model.gguf"
    path.write_bytes(VALID)
    assert main(["inspect", str(path)]) == 0
    assert "general.architecture: 'llama'" in capsys.readouterr().out
