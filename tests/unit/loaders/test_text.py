"""Text: the same characters from any encoding, compression and cut, resumable at every piece."""

import bz2
import gzip
import io
import lzma
import os
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm.errors import (
    ArgumentError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    MemoryLimitError,
    MissingDependencyError,
    RustLLMError,
    TruncatedFileError,
)
from rustllm.loaders.compression import DecompressedStream
from rustllm.loaders.text import read_text, stream_text

TEXT = "one\ntwo ßpecial 語\r\n\n\nthree 😀\n  \nfour"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
LINES = ["one", "two ßpecial 語", "", "", "three 😀", "  ", "four"]


def lz4_compress(data):
    return pytest.importorskip("lz4.frame").compress(data)


def zstd_compress(data):
    return pytest.importorskip("zstandard").compress(data)


COMPRESSORS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd_compress,
    "lz4": lz4_compress,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_unicode_encoding_is_told_and_read(encoding):
    told = encoding if encoding not in ("utf-16-le", "utf-16-be") else None
    data = TEXT.encode(encoding)
    if told is None:  # without a mark, zeros must be frequent enough to tell
        assert read_text(io.BytesIO(data), encoding=encoding) == TEXT
    assert read_text(io.BytesIO(data)) == TEXT
    assert list(stream_text(io.BytesIO(data), unit="line")) == LINES


@pytest.mark.parametrize("encoding", [*ENCODINGS, "latin-1"])
@pytest.mark.parametrize("unit", ["chunk", "line", "paragraph", "document"])
@pytest.mark.parametrize("chunk", [1, 3, 8, 1 << 20])
def test_a_stream_resumes_after_every_piece(encoding, unit, chunk, tmp_path):
    text = TEXT if encoding != "latin-1" else "ä\nöü\r\n\nß x\ny"
    path = tmp_path / "text"
    path.write_bytes(text.encode(encoding))
    how = {"unit": unit, "chunk": chunk}
    how |= {"encoding": encoding} if "-1" in encoding and encoding != "utf-16" else {}
    how |= {"separator": "\n\n"} if unit == "document" else {}
    with stream_text(path, **how) as stream:
        pieces, offsets = [], [stream.offset]
        for piece in stream:
            pieces.append(piece)
            offsets.append(stream.offset)
    if unit == "chunk":
        assert "".join(pieces) == text
    for i, offset in enumerate(offsets):
        with stream_text(path, start=offset, **how) as rest:
            assert list(rest) == pieces[i:]


def test_units():
    def cut(unit, **how):
        return list(stream_text(io.BytesIO(TEXT.encode()), unit=unit, **how))

    assert cut("line") == LINES
    assert cut("paragraph") == ["one\ntwo ßpecial 語", "three 😀", "four"]
    assert cut("document") == [TEXT]
    assert cut("document", separator="e") == TEXT.removesuffix("e").split("e")
    pieces = ["one\ntwo ßpe", "cial 語\r\n\n\n", "three 😀\n", "  \nfour"]
    assert cut("chunk", chunk=12) == pieces


def test_nothing_is_no_piece_and_a_last_line_end_makes_no_line():
    for unit in ("chunk", "line", "paragraph", "document"):
        assert list(stream_text(io.BytesIO(b""), unit=unit)) == []
    assert list(stream_text(io.BytesIO(b"a\n"), unit="line")) == ["a"]
    assert list(stream_text(io.BytesIO(b"\n\n"), unit="line")) == ["", ""]
    assert list(stream_text(io.BytesIO(b"a|b|"), unit="document", separator="|")) == ["a", "b"]
    assert read_text(io.BytesIO(b"")) == ""


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.sampled_from("ab\r\n \tßЖ語😀\ufeff\0"), max_size=80),
    st.sampled_from(["utf-8", "utf-16-le", "utf-32-be"]),
    st.integers(1, 40),
    st.integers(1, 7),
)
def test_any_text_is_cut_as_python_cuts_it(text, encoding, chunk, reads):
    class Trickle(io.BytesIO):
        """Gives a few bytes at a time, as a pipe does."""

        def read(self, n=-1):
            return super().read(min(n, reads) if n > 0 else reads)

    data = text.encode(encoding)

    def cut(unit, **how):
        return list(stream_text(Trickle(data), chunk, unit=unit, encoding=encoding, **how))

    if text.startswith("\ufeff"):  # a mark, not a character
        text = text[1:]
    lines = text.split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    assert cut("line") == [line.removesuffix("\r") for line in lines]
    assert "".join(cut("chunk")) == text
    documents = text.split("Ж")
    documents = documents[:-1] if documents[-1] == "" else documents
    assert cut("document", separator="Ж") == documents


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressed_text_is_read_alike(name, tmp_path):
    data = COMPRESSORS[name](TEXT.encode() * 1000)
    path = tmp_path / "text"
    path.write_bytes(data)
    with stream_text(path, 1000) as stream:
        assert stream.format.compression == name
        assert "".join(stream) == TEXT * 1000
    lines = list(stream_text(path, unit="line"))
    with stream_text(path, unit="line") as stream:
        for _ in range(3000):
            next(stream)
        offset = stream.offset
    assert list(stream_text(path, unit="line", start=offset)) == lines[3000:]


@pytest.mark.parametrize("name", COMPRESSORS)
def test_members_that_follow_each_other_are_one_text(name):
    compress = COMPRESSORS[name]
    data = compress(b"one ") + compress(b"") + compress(b"two")
    assert read_text(io.BytesIO(data)) == "one two"
    if name == "gzip":
        assert read_text(io.BytesIO(data + bytes(512))) == "one two"
        with pytest.raises(FileFormatError, match="damaged"):
            read_text(io.BytesIO(data + b"tail"))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_every_truncation_of_compressed_text_is_refused(name):
    data = COMPRESSORS[name](os.urandom(300).hex().encode())
    for n in range(12, len(data)):
        with pytest.raises((TruncatedFileError, FileFormatError)):
            read_text(io.BytesIO(data[:n]))
    with pytest.raises(TruncatedFileError) as told:
        read_text(io.BytesIO(data[:-3]), limit=None)
    assert told.value.offset == len(data) - 3


@pytest.mark.parametrize("name", COMPRESSORS)
def test_damaged_compressed_text_is_refused_or_read(name):
    original = COMPRESSORS[name](TEXT.encode() * 5)
    for place in range(len(original)):
        for bit in (1, 128):
            data = bytearray(original)
            data[place] ^= bit
            try:
                read_text(io.BytesIO(data), fallback="latin-1")
            except RustLLMError:
                pass


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr("rustllm.loaders.compression._BOMB_BYTES", 1 << 22)
    bomb = bz2.compress(bytes(1 << 23))
    stream = DecompressedStream(io.BytesIO(bomb), "bzip2", "bomb")
    with pytest.raises(FileFormatError, match="bomb"):
        while stream.read(1 << 16):
            pass
    free = DecompressedStream(io.BytesIO(bomb), "bzip2", "bomb", guard=False)
    assert sum(len(piece) for piece in iter(lambda: free.read(1 << 16), b"")) == 1 << 23


@pytest.mark.parametrize("module", ["zstandard", "lz4.frame"])
def test_a_missing_package_is_named(module, monkeypatch):
    head = {"zstandard": b"\x28\xb5\x2f\xfd", "lz4.frame": b"\x04\x22\x4d\x18"}[module]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError) as told:
        read_text(io.BytesIO(head + bytes(20)))
    assert told.value.package == module.partition(".")[0]


def test_bytes_that_are_not_text_are_told_by_offset():
    with pytest.raises(FileFormatError) as told:
        read_text(io.BytesIO(b"abc\xff\xfedef"))
    assert told.value.offset == 3
    data = b"x" * (1 << 20) + b"\xff" + b"\n"
    for unit in ("chunk", "line", "document"):
        with pytest.raises(FileFormatError) as told, stream_text(io.BytesIO(data), unit=unit) as s:
            list(s)
        assert told.value.offset == 1 << 20
    assert read_text(io.BytesIO(b"abc\xff"), fallback="latin-1") == "abcÿ"
    assert read_text(io.BytesIO(b"abc\xff"), errors="replace") == "abc\ufffd"
    assert read_text(io.BytesIO(b"abc\xff"), encoding="cp1252") == "abcÿ"


def test_units_that_are_too_long_are_refused_and_chunks_are_not():
    data = b"a\n" + b"x" * 5000 + b"\nb"
    for unit in ("line", "paragraph", "document"):
        with pytest.raises(FileFormatError, match="more than 1000"):
            list(stream_text(io.BytesIO(data), unit=unit, max_unit=1000, separator="\0"))
    assert max(map(len, stream_text(io.BytesIO(data), 100))) <= 100


def test_a_text_over_the_limit_is_refused():
    with pytest.raises(MemoryLimitError):
        read_text(io.BytesIO(b"x" * 100), limit=99)
    assert len(read_text(io.BytesIO(b"x" * 100), limit=100)) == 100


@pytest.mark.parametrize("data", [b"one\ntwo\nthree\n", "eins\nzw\xf6lf\n\u4e09".encode()])
@pytest.mark.parametrize("given", [0, 1, 2])
def test_the_rest_is_what_was_not_given_out(data, given, tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf" + data)
    lines = data.decode().splitlines(keepends=True)
    for source in (tmp_path / "a", io.BytesIO(b"\xef\xbb\xbf" + data)):
        with stream_text(source, unit="line") as stream:
            assert [next(stream) + "\n" for _ in range(given)] == lines[:given]
            assert stream.read_rest(len(data) + 3) == "".join(lines[given:])
            assert stream.offset == len(data) + 3
            assert list(stream) == [] and stream.read_rest() == ""
    for source in (tmp_path / "a", io.BytesIO(b"\xef\xbb\xbf" + data)):
        with stream_text(source, unit="line") as stream, pytest.raises(MemoryLimitError):
            stream.read_rest(len(data) + 2)


def test_a_file_that_grew_is_read_to_its_new_end(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    with stream_text(path) as stream:
        with path.open("ab") as more:
            more.write("zw\xf6lf\n".encode())
        assert stream.read_rest() == "one\nzw\xf6lf\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_read_whole(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"low " * 99_999,))
    writer.start()
    assert read_text(tmp_path / "pipe") == "low " * 99_999
    writer.join()


def test_bad_arguments_are_refused(tmp_path):
    path = tmp_path / "a"
    path.write_text("ß\n")
    for how in (
        {"unit": "word"},
        {"chunk": 0},
        {"start": -1},
        {"start": 4},
        {"start": 1},
        {"separator": ""},
        {"encoding": "no-such"},
        {"fallback": "no-such"},
    ):
        with pytest.raises(ArgumentError):
            stream_text(path, **how)
    with pytest.raises(ArgumentError):
        read_text(7)
    with pytest.raises(ArgumentError):
        read_text(io.StringIO("text"))


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(FileMissingError):
        read_text(tmp_path / "none")
    with pytest.raises(FileMissingError):
        read_text("a\0b")
    with pytest.raises(FileAccessError, match="folder"):
        read_text(tmp_path)


def test_archives_are_refused():
    for head in (b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", bytes(257) + b"ustar"):
        with pytest.raises(FileFormatError):
            read_text(io.BytesIO(head + bytes(300)), fallback="latin-1")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x\n" * 500_000)
    for change, error in ((100, TruncatedFileError), (1_000_000, FileFormatError)):
        stream = stream_text(path, unit="line")
        next(stream)
        os.truncate(path, change)
        os.utime(path, ns=(1, 1))
        with pytest.raises(error):
            list(stream)
        stream.close()
        path.write_bytes(b"x\n" * 500_000)


def test_standard_input_and_urls(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin")))
    assert read_text("-") == "from stdin"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x1f\x8bno gzip")))
    with pytest.raises(FileFormatError) as caught:
        read_text("-")
    assert caught.value.path == "<stdin>"
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://a.txt", "wb") as out:
        out.write(gzip.compress(b"from a URL"))
    assert read_text("memory://a.txt") == "from a URL"
    with pytest.raises(FileMissingError):
        read_text("memory://none.txt")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError):
        read_text("memory://a.txt")


@pytest.mark.parametrize(("named", "shown"), [("report.gz", "report.gz"), (None, "<stream>")])
def test_an_error_in_a_stream_names_it_as_it_names_itself(named, shown):
    stream = io.BytesIO(b"\x1f\x8bno gzip")
    if named is not None:
        stream.name = named
    with pytest.raises(FileFormatError) as caught:
        read_text(stream)
    assert caught.value.path == shown


def test_memory_is_bounded_whatever_the_length(tmp_path):
    import tracemalloc

    path = tmp_path / "zeros.gz"
    with gzip.open(path, "wb") as out:
        for _ in range(64):
            out.write(b"y" * (1 << 20))
    tracemalloc.start()
    total = sum(map(len, stream_text(path, 1 << 16)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 64 << 20
    assert peak < 4 << 20
