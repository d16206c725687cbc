"""The scanner of JSON lines says what json.loads says, or leaves the line to it."""

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm._core.json_text import run_of, scan_texts

ROOM = 64


def scanned(data, name=b"text", start=0):
    """Texts of whole lines; a line left to the caller as its bytes in a tuple."""
    buffer = bytearray(data)
    spans = np.zeros((ROOM, 2), np.int64)
    found = []
    at, n = start, 0
    while at < len(buffer):
        before = bytes(buffer)
        at, n, odd = scan_texts(buffer, at, len(buffer), name, spans, n)
        found += [bytes(buffer[a:b]).decode() for a, b in spans[:n].tolist()]
        n = 0
        if odd >= 0:
            assert buffer[at:odd] == before[at:odd], "an odd line was touched"
            found.append((bytes(buffer[at:odd]),))
            at = odd
    return found


def expected(line, name="text"):
    """What json.loads makes of a line: its text, or None."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    value = record.get(name) if isinstance(record, dict) else None
    return value if isinstance(value, str) else None


def test_usual_lines_are_done_without_python():
    records = [
        {"text": "plain"},
        {"text": "", "n": -1.5e-7, "list": [1, [], {}, {"text": "inner"}, None, True, False]},
        {"id": 0, "text": 'quote " slash \\ / \b\f\n\r\t é 語 😀 \x7f', "after": {"a": {"b": []}}},
        {"other": {"text": "not this"}, "text": "this"},
        {"": 1, "text ": "no", "text": "yes"},
    ]
    for ascii_only in (True, False):
        data = "".join(json.dumps(r, ensure_ascii=ascii_only) + "\n" for r in records).encode()
        assert scanned(data) == [r["text"] for r in records]
        assert scanned(data.replace(b"\n", b"\r\n\r\n \t\n")) == [r["text"] for r in records]
    assert scanned(b' \t{ "text" :\t"a" \r} \r\n{"text":"b"}') == ["a", "b"]
    assert scanned(b'{"text": "first", "text": "\\u00e9\\ud83d\\ude00"}') == ["é😀"]


@pytest.mark.parametrize(
    "line",
    [
        '{"text": NaN}', '{"a": NaN, "text": ""}', '{"text": "\\ud800"}', '{"text": "\\ud800x"}',
        '{"text": "\\udc00\\ud800"}', '{"te\\u0078t": "a"}', '{"text": 1}',
        '{"text": "a", "text": 1}',
        '["text"]', '"text"', '{"text": "a"} x', '{"text": "a",}', '{"text" "a"}', '{"text": "a"',
        '{"text": "\x01"}', '{"text": "\t"}', '{"text": "\\x"}', '{"text": "\\u12g4"}', "{}", "[]",
        '{"a": 01, "text": "b"}', '{"a": 1., "text": "b"}', '{"a": -, "text": "b"}', "\ufeff{}",
        '{"a": 1e, "text": "b"}', '{"a": tru, "text": "b"}', '{"a": [1,], "text": "b"}',
        '{"a": [1}, "text": "b"}', '{"a": {1: 2}, "text": "b"}', '{"text": "a\\', '{"text": "a',
        '{"a": ' + "[" * 70 + "]" * 70 + ', "text": "b"}', '{"a": ' + "9" * 5000 + ', "text": "b"}',
        "\xa0", "{", '{"', '{"text"', '{"text":', '{"text": ]}', '{"a": [}], "text": "b"}',
    ],
)  # fmt: skip
def test_unusual_lines_are_left_alone(line):
    data = line.encode()
    assert scanned(data + b"\n") == [(data + b"\n",)]
    assert scanned(data) == [(data,)]


def test_lines_that_are_texts_themselves():
    assert scanned(b"one\r\n\n  \n{two}\n\x0b\x0c\n\xff\nthree\r", None) == [
        "one", "{two}", (b"\xff\n",), "three",
    ]  # fmt: skip
    assert scanned(b'{"text": "a"}', b"") == [(b'{"text": "a"}',)]
    assert scanned(b'{"": "a"}', b"") == ["a"]


def test_a_full_table_of_spans_ends_the_scan_and_it_goes_on():
    buffer = bytearray(b'{"text": "a"}\n' * (ROOM + 5))
    spans = np.zeros((ROOM, 2), np.int64)
    at, n, odd = scan_texts(buffer, 0, len(buffer), b"text", spans, 0)
    assert (at, n, odd) == (14 * ROOM, ROOM, -1)
    assert scan_texts(buffer, at, len(buffer), b"text", spans, n) == (at, ROOM, -1)
    assert scan_texts(buffer, at, len(buffer), b"text", spans, 0) == (len(buffer), 5, -1)
    for bad in ((-1, 5), (5, 4), (0, len(buffer) + 1)):
        with pytest.raises(ValueError, match="outside"):
            scan_texts(buffer, *bad, b"text", spans, 0)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["text", "a", ""]) | st.text(max_size=5), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_what_json_dumps_writes(value, ascii_only):
    try:
        line = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    found = scanned(line)
    assert found in ([(line,)], [expected(line)])


SEEDS = [
    json.dumps({"id": 7, "text": 'a"\\/\b\n é 語 😀' * 3, "meta": {"tags": ["x", None, 1.5e3]}}),
    json.dumps({"a": [[{"b": {}}], []], "text": "plain text " * 4}, ensure_ascii=False),
    '{"text": "first", "text" : "\\ud83d\\ude00\\u00E9", "n": -0.0E+1}',
]
PIECES = [b'"', b"\\", b"\\u", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b"e", b"NaN", b"\n"]
PIECES += [
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\udc00",
    b"text",
    b'"text":',
    b"\t",
    b" ",
    b"tr",
]


def test_damaged_lines_give_what_json_loads_gives_or_are_left_to_it():
    draw = random.Random(5)
    done = 0
    for _ in range(30_000):
        line = bytearray(draw.choice(SEEDS).encode())
        for _ in range(draw.choice((1, 1, 2, 3))):
            at = draw.randrange(len(line) + 1)
            line[at : at + draw.choice((0, 0, 1, 2, 9))] = draw.choice(PIECES)
        for piece, found in zip(
            [part + b"\n" for part in bytes(line).split(b"\n") if part.strip()],
            scanned(bytes(line) + b"\n"),
            strict=True,
        ):
            if isinstance(found, tuple):
                assert found == (piece,)
            else:
                done += 1
                assert found == expected(piece.removesuffix(b"\n").removesuffix(b"\r"))
    assert done > 3000


def test_runs_of_plain_characters_at_every_length_and_place():
    for n in range(70):
        assert run_of(b"x" * n) == n
        for odd in (b'"', b"\\", b"\0", b"\x1f"):
            for at in range(n):
                data = b"\x20\x7f\x80\xff!#[]"[at % 8 :][:1] * at + odd + b'"' * (n - at - 1)
                assert run_of(data) == run_of(data, True) == at
