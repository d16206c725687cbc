"""GGUF files that break a rule: each is refused with a typed error that tells where."""

import struct

import gguf_bytes as raw
import pytest

from rustllm.errors import FileFormatError, RustLLMError, TruncatedFileError, UnsupportedError
from rustllm.loaders.gguf import GGUFFile

KEY = raw.field("k", raw.U32, 1)
ARCHITECTURE = raw.field("general.architecture", raw.STR, "demo")
F = FileFormatError
T = TruncatedFileError
U = UnsupportedError


def one(ne=(32,), kind=0, offset=0, data=bytes(4096), name="w", **more):
    return raw.gguf([ARCHITECTURE], [raw.tensor(name, ne, kind, offset, **more)], data)


def two(offset, kind=0, ne=(8,), data=bytes(256), names=("a", "b"), **more):
    first, second = raw.tensor(names[0], ne, kind, 0), raw.tensor(names[1], ne, kind, offset)
    return raw.gguf(more.pop("fields", [ARCHITECTURE]), [first, second], data, **more)


def vocabulary(*fields, tokens=("a", "b")):
    return raw.gguf([ARCHITECTURE, raw.array("tokenizer.ggml.tokens", raw.STR, tokens), *fields])


HUGE = 0x7FFFFFFFFFFFFFC0
WRAPS = (4194305, 4194305, 211106198978564)
BAD = {
    # header
    "empty": (b"", T, "empty"),
    "three bytes": (b"GGU", T, "24 bytes"),
    "bad magic": (raw.gguf(magic=b"GGML"), F, "not a GGUF"),
    "bad short magic": (b"PK", F, "not a GGUF"),
    "only a magic": (b"GGUF", T, "24 bytes"),
    "version 0": (raw.gguf(version=0), U, "version 0"),
    "version 1": (raw.gguf(version=1), U, "version 1"),
    "future version": (raw.gguf(version=4), U, "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), U, "big-endian"),
    "too many tensors": (raw.gguf(n_tensors=2**63), F, "tensors; at most"),
    "more tensors than bytes": (raw.gguf(n_tensors=1000), T, "cannot be told"),
    "too many keys": (raw.gguf(n_fields=2**64 - 1), F, "keys; at most"),
    "more keys than bytes": (raw.gguf([KEY], n_fields=2), T, "cannot be told"),
    # keys and values
    "huge key": (raw.gguf([raw.field("k", raw.U32, 1, key_length=2**62)]), F, "key of"),
    "long key": (raw.gguf([raw.field("k" * 65536, raw.U32, 1)]), F, "key of"),
    "key past the end": (raw.gguf([raw.field("k", raw.U32, 1, key_length=300)]), T, "a key takes"),
    "empty key": (raw.gguf([raw.field("", raw.U64, 1)]), F, "key of 0 bytes"),
    "control character in a key": (raw.gguf([raw.field("a\nb", raw.U32, 1)]), F, "0x0a in a key"),
    "key that is not ASCII": (raw.gguf([raw.field("é", raw.U32, 1)]), F, "0xc3 in a key"),
    "bad value type": (raw.gguf([raw.text("k") + struct.pack("<IQ", 13, 0)]), F, "value type"),
    "duplicate key": (raw.gguf([KEY, KEY]), F, "twice"),
    "bad truth value": (raw.gguf([raw.field("k", raw.BOOL, 2)]), F, "truth value 2"),
    "bad truth value in an array": (raw.gguf([raw.array("k", raw.BOOL, [1, 3])]), F, "truth value"),
    "huge string": (raw.gguf([raw.text("k") + struct.pack("<IQ", 8, 2**64 - 1)]), T, "a string"),
    "string that is not UTF-8": (raw.gguf([raw.field("k", raw.STR, b"a\xff")]), F, "UTF-8"),
    "overlong UTF-8": (raw.gguf([raw.field("k", raw.STR, b"\xc0\xaf")]), F, "UTF-8"),
    "surrogate in UTF-8": (raw.gguf([raw.field("k", raw.STR, b"\xed\xa0\x80")]), F, "UTF-8"),
    "bad item type": (raw.gguf([raw.text("k") + struct.pack("<IIQ", 9, 13, 0)]), F, "item type"),
    "nested array": (
        raw.gguf([raw.text("k") + struct.pack("<IIQ", 9, 9, 0)]),
        U,
        "array of arrays",
    ),
    "array past the end": (raw.gguf([raw.array("k", raw.F64, [1.0], count=2)]), T, "2 items"),
    "array whose size wraps": (raw.gguf([raw.array("k", raw.F64, [], count=2**61)]), T, "items"),
    "strings past the end": (
        raw.gguf([raw.array("k", raw.STR, ["abcdefgh"], count=2)]),
        T,
        "string 1",
    ),
    "too many strings": (raw.gguf([raw.array("k", raw.STR, [], count=2**60)]), T, "items"),
    # alignment
    "alignment 13": (raw.gguf([raw.field("general.alignment", raw.U32, 13)]), F, "power of two"),
    "alignment 0": (raw.gguf([raw.field("general.alignment", raw.U32, 0)]), F, "power of two"),
    "alignment 2^31": (
        raw.gguf([raw.field("general.alignment", raw.U32, 2**31)]),
        F,
        "are allowed",
    ),
    "alignment as u64": (raw.gguf([raw.field("general.alignment", raw.U64, 32)]), F, "not u32"),
    "alignment as text": (raw.gguf([raw.field("general.alignment", raw.STR, "32")]), F, "not u32"),
    # tensors
    "long tensor name": (one(name="n" * 64), F, "tensor name of 64"),
    "empty tensor name": (one(name=""), F, "tensor name of 0"),
    "huge tensor name": (one(name_length=2**63), F, "tensor name of"),
    "NUL in a tensor name": (one(name="a\0b"), F, "NUL"),
    "tensor name that is not UTF-8": (one(name=b"\xff"), F, "UTF-8"),
    "no dimension": (one(ne=()), F, "0 dimensions"),
    "five dimensions": (one(ne=(1, 1, 1, 1, 1)), F, "5 dimensions"),
    "2^32 - 1 dimensions": (one(n_dims=2**32 - 1), F, "dimensions"),
    "zero dimension": (one(ne=(0,)), F, "is 0"),
    "negative dimension": (one(ne=(2**64 - 1,)), F, "are allowed"),
    "shape whose product wraps to 4": (one(ne=WRAPS, kind=24), F, "are allowed"),
    "shape of too many elements": (one(ne=(2**40, 2**40), kind=24), F, "2^63 elements"),
    "too many bytes": (one(ne=(2**40, 2**22), kind=0), F, "2^63 bytes"),
    "rows of parts of blocks": (one(ne=(31, 32), kind=2), F, "whole blocks of 32"),
    "rows of parts of super-blocks": (one(ne=(576, 4), kind=12), F, "whole blocks of 256"),
    "unknown type": (one(kind=99), U, "99 (unknown)"),
    "huge type": (one(kind=2**32 - 1), U, "unknown"),
    "removed type": (one(kind=4), U, "removed"),
    "removed type 36": (one(kind=36), U, "removed"),
    "activation type": (one(kind=9), U, "Q8_1"),
    "offset off the alignment": (one(offset=8), F, "multiple of the alignment"),
    "offset past the end": (one(offset=2**20), T, "past the end"),
    "offset that wraps": (one(offset=2**64 - 32), T, "past the end"),
    "data past the end": (one(ne=(2048,), data=bytes(4096)), T, "past the end"),
    "no data": (one(data=b""), T, "past the end"),
    "duplicate tensor": (two(32, names=("a", "a")), F, "twice"),
    "overlap": (two(0), F, "overlaps"),
    "partial overlap": (two(32, ne=(16,)), F, "overlaps"),
    "inconsistent alignment": (
        two(32, fields=[raw.field("general.alignment", raw.U32, 64)]),
        F,
        "multiple of the alignment 64",
    ),
    "sizes whose sum wraps": (two(HUGE, kind=24, ne=(HUGE,)), F, "are allowed"),
    # vocabulary
    "tokens are numbers": (
        raw.gguf([raw.array("tokenizer.ggml.tokens", raw.I32, [1])]),
        F,
        "[i32]",
    ),
    "no tokens": (vocabulary(tokens=()), F, "empty"),
    "scores too short": (
        vocabulary(raw.array("tokenizer.ggml.scores", raw.F32, [1.0])),
        F,
        "1 values",
    ),
    "scores of doubles": (
        vocabulary(raw.array("tokenizer.ggml.scores", raw.F64, [1, 2])),
        F,
        "[f64]",
    ),
    "scores not finite": (
        vocabulary(raw.array("tokenizer.ggml.scores", raw.F32, [1, float("nan")])),
        F,
        "finite",
    ),
    "types too long": (
        vocabulary(raw.array("tokenizer.ggml.token_type", raw.I32, [1] * 3)),
        F,
        "3 val",
    ),
    "types out of range": (
        vocabulary(raw.array("tokenizer.ggml.token_type", raw.I32, [1, 7])),
        F,
        "token type",
    ),
    "special token out of range": (
        vocabulary(raw.field("tokenizer.ggml.bos_token_id", raw.U32, 2)),
        F,
        "not in the vocabulary",
    ),
    "special token as text": (
        vocabulary(raw.field("tokenizer.ggml.bos_token_id", raw.STR, "1")),
        F,
        "type str",
    ),
    "byte token misspelt": (
        vocabulary(raw.array("tokenizer.ggml.token_type", raw.I32, [1, 6]), tokens=["a", "<0x-1>"]),
        F,
        "<0xNN>",
    ),
    "byte token twice": (
        vocabulary(
            raw.array("tokenizer.ggml.token_type", raw.I32, [6, 6]), tokens=["<0x0a>", "<0x0A>"]
        ),
        F,
        "twice",
    ),
    "short charsmap": (
        vocabulary(raw.array("tokenizer.ggml.precompiled_charsmap", raw.U8, [1, 0])),
        F,
        "trie",
    ),
    "charsmap without an end": (
        vocabulary(
            raw.array("tokenizer.ggml.precompiled_charsmap", raw.U8, [4, 0, 0, 0, 1, 1, 1, 1])
        ),
        F,
        "NUL",
    ),
    "template too large": (
        raw.gguf([raw.field("tokenizer.chat_template", raw.STR, "a" * (2**20 + 1))]),
        F,
        "template",
    ),
    "architecture is a number": (
        raw.gguf([raw.field("general.architecture", raw.U32, 1)]),
        F,
        "type u32",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name):
    data, error, message = BAD[name]
    with pytest.raises(error) as told:
        GGUFFile.from_buffer(data, path="bad.gguf")
    assert message in str(told.value)
    assert told.value.path == "bad.gguf"


@pytest.mark.parametrize("name", ["empty", "bad magic", "data past the end", "duplicate key"])
def test_refused_from_disk_alike(tmp_path, name):
    data, error, message = BAD[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    for mmap in (True, False):
        with pytest.raises(error, match=message):
            GGUFFile(path, mmap=mmap)


def test_errors_tell_key_tensor_and_offset():
    with pytest.raises(F) as told:
        GGUFFile.from_buffer(BAD["bad truth value"][0])
    assert (told.value.key, told.value.offset) == ("k", 24 + 8 + 1 + 4)
    with pytest.raises(U) as told:
        GGUFFile.from_buffer(BAD["unknown type"][0])
    assert told.value.tensor == "w"
    assert "quantize" in told.value.hint


STRICT = {
    "hole": (two(64), "unused bytes before tensor 'b'"),
    "trailing bytes": (one(ne=(8,), data=bytes(64)), "32 bytes after the last tensor"),
    "out of order": (
        raw.gguf(
            [ARCHITECTURE], [raw.tensor("a", [8], 0, 32), raw.tensor("b", [8], 0, 0)], bytes(64)
        ),
        "not in the order",
    ),
    "odd key": (raw.gguf([raw.field("a(b", raw.U32, 1)]), "in a key"),
    "alignment 4": (raw.gguf([raw.field("general.alignment", raw.U32, 4)]), "are allowed"),
    "no architecture": (raw.gguf(), "missing"),
    "NaN": (one(ne=(8,), data=struct.pack("<8f", *[0] * 7, float("nan"))), "value 7 is not finite"),
    "infinite scale": (
        one(ne=(64,), kind=2, data=bytes(18) + struct.pack("<e16x", float("inf")) + bytes(28)),
        "scale of block 1 is not finite",
    ),
    "token that is not UTF-8": (vocabulary(tokens=["a", b"\xff"]), "string 1 of 2 is not valid"),
    "merge of one part": (
        vocabulary(raw.array("tokenizer.ggml.merges", raw.STR, ["ab"])),
        "merge 0",
    ),
    "merge of unknown parts": (
        vocabulary(raw.array("tokenizer.ggml.merges", raw.STR, ["a b"])),
        "not a token",
    ),
}


@pytest.mark.parametrize("name", STRICT)
def test_refused_when_strict_only(name):
    data, message = STRICT[name]
    GGUFFile.from_buffer(data)
    with pytest.raises(F) as told:
        GGUFFile.from_buffer(data, strict=True)
    assert message in str(told.value)


def test_layout_problems_are_noted_when_not_strict():
    assert GGUFFile.from_buffer(STRICT["hole"][0]).problems == (
        "32 unused bytes before tensor 'b'",
        "160 bytes after the last tensor",
    )


def test_a_token_that_is_not_text_still_has_its_bytes():
    file = GGUFFile.from_buffer(vocabulary(tokens=["a", b"\xff\xfe"]))
    tokens = file.metadata["tokenizer.ggml.tokens"]
    assert tokens.bytes_at(1) == b"\xff\xfe"
    assert tokens.as_bytes_list() == [b"a", b"\xff\xfe"]
    for read in (lambda: tokens[1], tokens.as_list, lambda: list(tokens), tokens.check_utf8):
        with pytest.raises(F, match="string 1 of 2"):
            read()


def test_every_truncation_is_refused():
    data = raw.small()
    end = len(data) - 16  # the last tensor's data ends here; padding may be missing
    assert data[end - 2 : end] == struct.pack("<e", 7)
    for n in range(end):
        with pytest.raises(RustLLMError):
            GGUFFile.from_buffer(data[:n])
    GGUFFile.from_buffer(data[:end])


def test_every_single_byte_change_of_the_header_loads_or_is_refused():
    data = bytearray(raw.small())
    header = GGUFFile.from_buffer(data).data_start
    refused = 0
    for place in range(header):
        kept = data[place]
        for value in {0, 255, kept ^ 1, kept ^ 0x80}:
            data[place] = value
            try:
                file = GGUFFile.from_buffer(bytes(data))
                for tensor in file.tensors.values():
                    tensor.dequantize()
            except RustLLMError:
                refused += 1
        data[place] = kept
    assert refused > header  # most places matter
