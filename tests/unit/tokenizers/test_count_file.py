"""Files of pretoken counts: what is written is read, and nothing else is, checksum or not."""

import hashlib
import json

import pytest

from rustllm.errors import FileAccessError, FileFormatError, FileMissingError, TruncatedFileError
from rustllm.tokenizers.count_file import CountFile, read_count_file, write_count_file

MAGIC, DIGEST = b"RLCOUNTS", 16
HEADER = {"version": 1, "pattern": "gpt2", "sources": [["a.txt", 12]]}
ITEMS = [(b"a", 1), (b" the", 127), (b"b" * 200, 128), (b"\xff", (1 << 62) - 1)]


def number(value, n=8):
    return value.to_bytes(n, "little")


def sealed(header, rest):
    """A file with a checksum that is right, whatever the rest is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = MAGIC + number(len(text)) + text + rest
    return data + hashlib.blake2b(data, digest_size=DIGEST).digest()


@pytest.mark.parametrize("pattern", [None, "gpt2", r"\w+|\s+"])
def test_what_is_written_is_read(tmp_path, pattern):
    path = tmp_path / "counts"
    write_count_file(path, CountFile(pattern, [("b.txt", 2), ("a.txt", 1)], ITEMS))
    read = read_count_file(path)
    assert (read.pattern, read.sources) == (pattern, [("a.txt", 1), ("b.txt", 2)])
    assert sorted(read.items) == sorted(ITEMS)
    assert path.read_bytes()[: len(MAGIC)] == MAGIC


@pytest.mark.parametrize(
    ("header", "rest", "error", "said"),
    [
        (b"no json", number(0), FileFormatError, "bad header"),
        (b"[]", number(0), FileFormatError, "bad header"),
        ({"version": 1, "pattern": None}, number(0), FileFormatError, "bad header"),
        ({**HEADER, "sources": [["a"]]}, number(0), FileFormatError, "bad header"),
        ({**HEADER, "sources": 3}, number(0), FileFormatError, "bad header"),
        ({**HEADER, "version": 99}, number(0), FileFormatError, "version 99"),
        ({**HEADER, "pattern": 3}, number(0), FileFormatError, "pattern is no text"),
        (HEADER, number(1) + b"\x00\x01", FileFormatError, "bad pretoken or count"),
        (HEADER, number(1) + b"\x01a\x00", FileFormatError, "bad pretoken or count"),
        (HEADER, number(1) + b"\x01a" + b"\x80" * 8 + b"\x40", FileFormatError, "or count"),
        (HEADER, number(1) + b"\x01a" + b"\x80" * 20, TruncatedFileError, "past the end"),
        (HEADER, number(1) + b"\xff\xff\x03a", TruncatedFileError, "past the end"),
        (HEADER, number(0) + b"more", FileFormatError, "behind the last"),
    ],
)
def test_a_right_checksum_over_wrong_content_is_not_believed(tmp_path, header, rest, error, said):
    path = tmp_path / "counts"
    path.write_bytes(sealed(header, rest))
    with pytest.raises(error, match=said) as caught:
        read_count_file(path)
    assert str(caught.value.path) == str(path)


def test_a_file_that_cannot_be_read_and_one_that_is_no_count_file(tmp_path):
    with pytest.raises(FileMissingError):
        read_count_file(tmp_path / "none")
    with pytest.raises(FileAccessError):
        read_count_file(tmp_path)
    path = tmp_path / "counts"
    path.write_bytes(b"something else, and long enough to be a count file")
    with pytest.raises(FileFormatError, match="not a file of pretoken counts"):
        read_count_file(path)
    whole = sealed(HEADER, number(0))
    path.write_bytes(whole)
    assert read_count_file(path).items == []
    for n in (len(MAGIC), len(MAGIC) + 8, len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(FileFormatError):
            read_count_file(path)
