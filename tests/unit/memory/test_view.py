import gc
import mmap
import pickle
import sys
import weakref

import numpy as np
import pytest

from rustllm import TextSlice, errors
from rustllm.memory import ByteView, Interner

SAMPLES = ["", "plain", "naïve café", "日本語 text", "🙂🙃", "a\nb\r\nc\rd\n\n", "  x\ty  "]


@pytest.mark.parametrize("text", SAMPLES)
@pytest.mark.parametrize("wrap", [str, str.encode, lambda t: bytearray(t.encode())])
def test_text_from_any_source_reads_back(text, wrap):
    view = TextSlice(wrap(text))
    assert str(view) == text
    assert bytes(view) == text.encode()
    assert len(view) == view.nbytes == len(text.encode())
    assert view.n_chars == len(text)
    assert view.is_ascii == text.isascii()


@pytest.mark.parametrize("text", SAMPLES)
def test_text_equals_and_hashes_as_the_str_of_its_content(text):
    view = TextSlice(text.encode())
    assert view == text
    assert text == view
    assert view == TextSlice(text)
    assert hash(view) == hash(text)
    assert {text: 1}[view] == 1
    assert {view: 1}[text] == 1
    assert view != text + "x"
    assert view != text.encode()
    assert view != 7


@pytest.mark.parametrize("text", SAMPLES)
def test_bytes_equal_and_hash_as_the_bytes_of_their_content(text):
    data = text.encode()
    view = ByteView(memoryview(b"<" + data + b">"), 1, -1)
    assert view == data
    assert view == bytearray(data)
    assert hash(view) == hash(data)
    assert {data: 1}[view] == 1
    assert view != text
    assert view != TextSlice(text)
    assert list(view) == list(data)


def test_text_orders_as_str_does():
    texts = [*SAMPLES, "\uffff", "\U00010000", "z", "é"]
    assert [str(v) for v in sorted(map(TextSlice, texts))] == sorted(texts)
    for left in texts:
        for right in texts:
            view = TextSlice(left)
            assert (view < right) == (left < right)
            assert (view <= TextSlice(right)) == (left <= right)
            assert (view > right) == (left > right)
            assert (view >= right) == (left >= right)
    with pytest.raises(TypeError):
        _ = TextSlice("a") < b"a"


def test_an_ascii_str_and_a_buffer_are_not_copied():
    text = "plain ascii text" * 100
    data = np.frombuffer(text.encode(), np.uint8).copy()
    views = [TextSlice(text), TextSlice(data.data)]
    assert views[0].source is text
    before = sys.getrefcount(text)
    parts = [views[0][i : i + 5] for i in range(100)]
    assert sys.getrefcount(text) == before
    address = np.frombuffer(views[1][6:11], np.uint8).ctypes.data
    assert address == data.ctypes.data + 6
    assert (parts[6].offset, views[1][6:11].offset) == (6, 6)


def test_a_mapped_file_can_be_looked_at_and_stays_open_while_it_is(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("zwölf Boxkämpfer\n".encode() * 1000)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    line = next(TextSlice(mapped).lines())
    assert line == "zwölf Boxkämpfer"
    with pytest.raises(BufferError):
        mapped.close()
    kept = line.to_owned()
    del line
    gc.collect()
    mapped.close()
    assert kept == "zwölf Boxkämpfer"


def test_a_bytearray_cannot_move_under_a_view():
    data = bytearray(b"abc")
    view = ByteView(data)
    with pytest.raises(BufferError):
        data.extend(b"x" * 1000)
    del view
    data.extend(b"x")


def test_text_that_is_not_utf8_is_refused_with_its_offset():
    for bad, offset in [(b"ab\xff", 2), (b"\xc3", 0), (b"a" * 500 + b"\xed\xa0\x80", 500)]:
        with pytest.raises(errors.InvalidUtf8Error) as caught:
            TextSlice(bad)
        assert caught.value.offset == offset
    with pytest.raises(errors.InvalidUtf8Error) as caught:
        TextSlice("ab\ud800")
    assert caught.value.position == 2
    assert TextSlice("ab") != "ab\ud800"


@pytest.mark.parametrize("source", [7, None, [1], object()])
def test_a_source_without_a_buffer_is_a_type_error(source):
    with pytest.raises(TypeError):
        ByteView(source)
    with pytest.raises(TypeError):
        TextSlice(source)


def test_a_source_that_is_not_contiguous_is_refused():
    with pytest.raises((BufferError, ValueError)):
        ByteView(np.arange(10, dtype="u1")[::2])


def test_slices_count_bytes_and_never_cut_a_character():
    text = TextSlice("aé日🙂z")
    encoded = "aé日🙂z".encode()
    for start in range(len(encoded) + 1):
        for stop in range(start, len(encoded) + 1):
            whole = all(text.is_boundary(p) for p in (start, stop)) or start == stop
            if whole:
                assert bytes(text[start:stop]) == encoded[start:stop]
                assert TextSlice(text, start, stop) == text[start:stop]
                assert TextSlice("aé日🙂z", start, stop) == text[start:stop]
            else:
                with pytest.raises(errors.ArgumentError):
                    text[start:stop]
                with pytest.raises(errors.ArgumentError):
                    TextSlice(text, start, stop)
                with pytest.raises(ValueError):
                    TextSlice(encoded, start, stop)
    assert text[-1:] == "z"
    assert text[100:] == ""
    with pytest.raises(errors.ArgumentError):
        text[0]
    with pytest.raises(errors.ArgumentError):
        text[::2]
    with pytest.raises(TypeError):
        iter(text)


def test_a_part_of_a_part_is_checked_against_its_whole_source():
    inner = TextSlice(TextSlice("ééé", 2, 4))
    assert inner == "é"
    with pytest.raises(errors.ArgumentError):
        TextSlice(inner, 0, 1)


def test_bytes_are_indexed_as_bytes():
    view = ByteView(b"abc")
    assert (view[0], view[-1], bytes(view[1:]), 98 in list(view)) == (97, 99, b"bc", True)
    for bad in (3, -4):
        with pytest.raises(IndexError):
            view[bad]
    with pytest.raises(errors.ArgumentError):
        view[::-1]


def test_views_export_read_only_buffers():
    view = memoryview(TextSlice("abc")[1:])
    assert (view.readonly, view.tobytes(), view.format) == (True, b"bc", "B")
    with pytest.raises((BufferError, ValueError)):
        np.frombuffer(TextSlice("abc"), np.uint8)[0] = 1
    assert bytes(memoryview(ByteView(b""))) == b""


def test_an_operand_of_the_other_kind_is_refused():
    for act in (
        lambda: TextSlice("a").find(b"a"),
        lambda: ByteView(b"a").find("a"),
        lambda: TextSlice("a").split(b","),
        lambda: ByteView(b"a").startswith(TextSlice("a")),
        lambda: TextSlice("a").split(""),
        lambda: TextSlice("a").count(""),
        lambda: TextSlice("a").strip("é"),
    ):
        with pytest.raises(errors.ArgumentError):
            act()


def test_search_in_a_large_text_finds_what_is_there():
    text = TextSlice("x" * 300_000 + "é needle" + "y" * 300_000)
    assert text.find("needle") == 300_003
    assert "nothing" not in text
    assert text.count("x") == 300_000


def test_views_pickle_as_their_content_and_take_weak_references():
    for view in (TextSlice("xaéz")[1:4], ByteView(b"abcd", 1, 3)):
        again = pickle.loads(pickle.dumps(view))
        assert type(again) is type(view)
        assert again == view
        assert weakref.ref(view)() is view


def test_repr_is_short_and_cuts_no_character():
    assert repr(TextSlice("aé")) == "TextSlice('aé')"
    assert repr(TextSlice("é" * 100)).endswith("'...)")
    assert repr(TextSlice("a" + "é" * 100)).count("é") == 29
    assert repr(ByteView(b"ab")) == "ByteView(b'ab')"


def test_decoding_follows_bytes_decode():
    assert ByteView(b"a\xff").decode(errors="replace") == "a\ufffd"
    assert ByteView(b"a\xff").decode("latin-1") == "aÿ"
    with pytest.raises(UnicodeDecodeError):
        ByteView(b"a\xff").decode()


def test_interner_gives_one_object_and_number_for_equal_texts():
    interner = Interner(limit=2)
    source = "to be to be"
    words = TextSlice(source).split()
    assert [interner.id(word) for word in words] == [0, 1, 0, 1]
    assert interner.intern("to") is interner.intern(words[2])
    assert interner.text(0).source is not source
    assert "be" in interner
    assert len(interner) == 2
    with pytest.raises(errors.MemoryLimitError):
        interner.id("not")
    with pytest.raises(errors.ArgumentError):
        interner.id(b"to")
    with pytest.raises(IndexError):
        interner.text(2)
