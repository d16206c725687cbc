"""Build GGUF bytes by hand, right and wrong; knows nothing of our reader or writer."""

import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARRAY, U64, I64, F64 = range(13)
_FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q"}
_FORMATS |= {I64: "q", F64: "d"}


def text(value, length=None):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data) if length is None else length) + data


def scalar(kind, value):
    return text(value) if kind == STR else struct.pack("<" + _FORMATS[kind], value)


def field(key, kind, value, key_length=None):
    return text(key, key_length) + struct.pack("<I", kind) + scalar(kind, value)


def array(key, kind, values, count=None):
    head = text(key) + struct.pack("<IIQ", ARRAY, kind, len(values) if count is None else count)
    return head + b"".join(scalar(kind, value) for value in values)


def tensor(name, ne, kind, offset, n_dims=None, name_length=None):
    dims = len(ne) if n_dims is None else n_dims
    head = text(name, name_length) + struct.pack("<I", dims)
    return head + struct.pack(f"<{len(ne)}QIQ", *ne, kind, offset)


def gguf(
    fields=(),
    tensors=(),
    data=b"",
    *,
    magic=b"GGUF",
    version=3,
    n_tensors=None,
    n_fields=None,
    align=32,
):
    """A whole file; counts can be made to lie."""
    head = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(fields) if n_fields is None else n_fields,
    )
    head += b"".join(fields) + b"".join(tensors)
    if data:
        head += bytes(-len(head) % align)
    return head + data


def small():
    """A valid file with every kind of value, three tensors and a vocabulary."""
    fields = [
        field("general.architecture", STR, "demo"),
        field("demo.u8", U8, 255),
        field("demo.i8", I8, -128),
        field("demo.u16", U16, 65535),
        field("demo.i16", I16, -32768),
        field("demo.u32", U32, 2**32 - 1),
        field("demo.i32", I32, -(2**31)),
        field("demo.u64", U64, 2**64 - 1),
        field("demo.i64", I64, -(2**63)),
        field("demo.f32", F32, 0.5),
        field("demo.f64", F64, 0.1),
        field("demo.yes", BOOL, 1),
        field("demo.no", BOOL, 0),
        field("demo.text", STR, "grüße"),
        field("demo.empty", STR, ""),
        array("demo.flags", BOOL, [1, 0, 1]),
        array("demo.none", F64, []),
        *(
            array(f"demo.list.{kind}", kind, [1, 2, 3])
            for kind in (U8, I8, U16, I16, U32, I32, F32, U64, I64, F64)
        ),
        array("tokenizer.ggml.tokens", STR, ["<unk>", "a", "b", "ab", "<0x0A>"]),
        array("tokenizer.ggml.scores", F32, [0.0, -1.0, -2.0, -3.0, -4.0]),
        array("tokenizer.ggml.token_type", I32, [2, 1, 1, 1, 6]),
        array("tokenizer.ggml.merges", STR, ["a b"]),
        field("tokenizer.ggml.unknown_token_id", U32, 0),
    ]
    tensors = [
        tensor("token_embd.weight", [32, 5], 8, 0),
        tensor("norm.weight", [32], 0, 192),
        tensor("half", [4, 2], 1, 320),
    ]
    blocks = b"".join(struct.pack("<e", 0.5) + bytes(range(32)) for _ in range(5))
    data = (
        blocks.ljust(192, b"\0") + struct.pack("<32f", *range(32)) + struct.pack("<8e", *range(8))
    )
    return gguf(fields, tensors, data.ljust(352, b"\0"))
