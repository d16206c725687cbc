"""Records of JSON lines and tables."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm.errors import ArgumentError, FileFormatError, FileMissingError, UnsupportedError
from rustllm.loaders.records import stream_records
from rustllm.loaders.sources import list_files


def test_json_lines_resume_at_every_record(tmp_path):
    rows = [{"text": "ä" * i, "n": i} for i in range(50)]
    path = tmp_path / "a"
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for data in (text.encode(), gzip.compress(text.encode())):
        path.write_bytes(data)
        with stream_records(path) as stream:
            assert stream.kind == "jsonl"
            read, offsets = [], [stream.offset]
            for row in stream:
                read.append(row)
                offsets.append(stream.offset)
        assert read == rows
        for i in (0, 1, 25, 50):
            assert list(stream_records(path, "jsonl", start=offsets[i])) == rows[i:]


def test_blank_lines_between_records_are_passed_over():
    stream = stream_records(io.BytesIO(b'\n{"a": 1}\n\n \t\n{"a": 2}\n\n'), "jsonl")
    assert list(stream) == [{"a": 1}, {"a": 2}]
    with pytest.raises(FileFormatError) as told:
        list(stream_records(io.BytesIO(b'\n\n{"a": 1}\n\n2'), "jsonl"))
    assert (told.value.line, told.value.offset) == (5, 12)


def test_json_is_one_object_or_an_array_of_them():
    assert list(stream_records(io.BytesIO(b'[{"a": 1}, {"a": 2}]'), "json")) == [{"a": 1}, {"a": 2}]
    assert list(stream_records(io.BytesIO(b'{"a": 1}'), "json")) == [{"a": 1}]
    with pytest.raises(FileFormatError, match="item 1"):
        list(stream_records(io.BytesIO(b'[{"a": 1}, 2]'), "json"))
    with pytest.raises(ArgumentError):
        stream_records(io.BytesIO(b"[]"), "json", start=1)


@pytest.mark.parametrize(
    ("line", "message", "offset"),
    [
        (b'{"a": }', "not JSON", 15),
        (b"[1]", "not an object", 9),
        (b"[" * 100_000, "nested", 9),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read", 9),
    ],
)
def test_a_bad_line_is_told_by_line_and_offset(line, message, offset):
    data = b'{"a": 1}\n' + line + b'\n{"a": 3}'
    with pytest.raises(FileFormatError, match=message) as told:
        list(stream_records(io.BytesIO(data), "jsonl"))
    assert (told.value.line, told.value.offset) == (2, offset)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.text('a", \n;ß', max_size=6), min_size=2, max_size=2), min_size=0, max_size=8
    )
)
def test_tables_are_read_as_the_csv_module_reads_them(rows):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerows([["x", "y"], *rows])
    data = io.BytesIO(out.getvalue().encode())
    assert [[row["x"], row["y"]] for row in stream_records(data, "csv")] == rows


def test_tables_resume_with_their_columns_and_take_long_cells():
    data = b'id\ttext\n1\t"a\nb"\n\n2\t' + b"c" * 200_000 + b"\n3\td"
    stream = stream_records(io.BytesIO(data), "tsv")
    assert next(stream) == {"id": "1", "text": "a\nb"}
    assert stream.columns == ["id", "text"]
    offset = stream.offset
    assert len(next(stream)["text"]) == 200_000
    rest = stream_records(io.BytesIO(data), "tsv", start=offset, columns=stream.columns)
    assert [row["id"] for row in rest] == ["2", "3"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n1\n", "1 cells for 2 columns"),
        (b"a,a\n", "one name"),
        (b'a,b\n1,"x\n', "not closed"),
        (b'a,b\n1,"x"y\n', "around a whole cell"),
        (b'a,b\n1"x,"y\n', "around a whole cell"),
    ],
)
def test_bad_tables_are_refused(data, message):
    with pytest.raises(FileFormatError, match=message):
        list(stream_records(io.BytesIO(data), "csv"))


def test_a_row_that_never_ends_is_refused():
    with pytest.raises(FileFormatError, match="quote missing"):
        list(stream_records(io.BytesIO(b'a\n"' + b"x\n" * 1000), "csv", max_record=100))


def test_files_without_records_are_refused(tmp_path):
    path = tmp_path / "a"
    path.write_text("plain text")
    with pytest.raises(UnsupportedError):
        stream_records(path)


def test_folders_and_patterns_are_listed_in_order(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a.txt", ".git/x.txt", "c.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)

    def names(*args):
        return [str(p).removeprefix(f"{tmp_path}/") for p in list_files(*args)]

    assert names(tmp_path, "*.txt") == ["a.txt", "b/1.txt", "b/2.txt"]
    assert names(f"{tmp_path}/b/*.txt") == ["b/1.txt", "b/2.txt"]
    assert names([tmp_path / "c.bin", tmp_path / "b", "-"]) == ["c.bin", "b/1.txt", "b/2.txt", "-"]
    for missing in ("none", "*.none"):
        with pytest.raises(FileMissingError):
            list_files(tmp_path / missing)
