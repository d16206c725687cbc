"""Text where it lies in a file, and tokenizers that read it there."""

import ctypes
import gc
import mmap
import os
import random

import numpy as np
import pytest

import rustllm
from rustllm import BpeTrainer, Encoding, TextSlice
from rustllm.errors import (
    DisallowedSpecialTokenError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    OutOfRangeError,
)
from rustllm.loaders.string_array import StringArray

TEXT = "It's a naïve café, 日本語 text 12345 😀 with  spaces\n\n" * 40


@pytest.fixture(scope="module")
def enc():
    ranks = BpeTrainer(400, "cl100k").train([TEXT]).mergeable_ranks()
    return Encoding("e", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={"<end>": 900})


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_whole_text_and_its_lines_are_views_of_the_file(tmp_path, mapped, mark):
    path = tmp_path / "text"
    path.write_bytes(mark + TEXT.encode())
    text = rustllm.map_text(path, mmap=mapped)
    assert isinstance(text, TextSlice)
    assert text == TEXT
    lines = list(text.lines())
    path.unlink()
    del text
    gc.collect()
    assert [str(line) for line in lines] == TEXT.splitlines()


def test_files_that_cannot_be_looked_at_as_text(tmp_path):
    with pytest.raises(FileMissingError):
        rustllm.map_text(tmp_path / "none")
    with pytest.raises(FileAccessError):
        rustllm.map_text(tmp_path)
    (tmp_path / "latin").write_bytes(b"\xef\xbb\xbfabc caf\xe9 au lait")
    with pytest.raises(FileFormatError) as caught:
        rustllm.map_text(tmp_path / "latin")
    assert caught.value.offset == 10
    assert "read_text" in caught.value.hint
    (tmp_path / "empty").write_bytes(b"")
    assert rustllm.map_text(tmp_path / "empty") == ""


def test_slices_give_the_ids_of_their_strings(enc):
    whole = TextSlice(TEXT)
    rng = random.Random(1)
    cuts = []
    while len(cuts) < 200:
        a, b = sorted(rng.choices(range(len(whole) + 1), k=2))
        if whole.is_boundary(a) and whole.is_boundary(b):
            cuts.append(whole[a:b])
    strings = [str(cut) for cut in cuts]
    assert [enc.encode(cut) for cut in cuts] == [enc.encode(string) for string in strings]
    assert [enc.encode_ordinary(cut) for cut in cuts] == enc.encode_ordinary_batch(strings)
    assert enc.encode_batch(cuts) == enc.encode_batch(strings)
    assert [enc.count(cut) for cut in cuts] == enc.count_batch(strings).tolist()
    one, other = enc.encode_batch_flat(cuts), enc.encode_batch_flat(strings)
    assert np.array_equal(one.ids, other.ids)
    assert np.array_equal(one.offsets, other.offsets)


@pytest.mark.parametrize("unit", ["日本語😀 é", "x", "é", "a 日\n"])
def test_long_slices_are_cut_between_characters(enc, unit):
    text = unit * (5_000_000 // len(unit.encode()))
    assert np.array_equal(enc.encode_to_numpy(TextSlice(text)), enc.encode_to_numpy(text))


@pytest.mark.parametrize("repeat", [1, 1_500])
def test_a_special_token_is_placed_in_characters(enc, repeat):
    text = TEXT * repeat + "日<end>"
    with pytest.raises(DisallowedSpecialTokenError) as of_string:
        enc.encode_to_numpy(text)
    with pytest.raises(DisallowedSpecialTokenError) as of_slice:
        enc.encode_to_numpy(TextSlice(text))
    assert of_slice.value.position == of_string.value.position == len(text) - 5
    assert of_slice.value.token == "<end>"


@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
@pytest.mark.parametrize("n", [1, 3, 15, 16, 31, 63, 64, 65, 257, 4096])
def test_nothing_behind_a_slice_is_read(enc, n):
    """The slice ends where memory ends: a read beyond it would end the process."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + page), ctypes.c_size_t(page), 0) == 0
    data = (TEXT.encode() * 3)[: min(n, page)].decode(errors="ignore").encode()
    memory[page - len(data) : page] = data
    view = np.frombuffer(memory, np.uint8)[page - len(data) : page]
    cut = TextSlice(view)
    assert enc.encode(cut) == enc.encode(data.decode())
    assert enc.encode_batch([cut] * 3, num_threads=2) == [enc.encode(data.decode())] * 3
    assert libc.mprotect(ctypes.c_void_p(address + page), ctypes.c_size_t(page), 3) == 0


def test_strings_of_a_file_as_slices():
    text = np.frombuffer(b"one\xfftwo", np.uint8)
    words = StringArray(text, np.array([0, 3, 4]), np.array([3, 1, 3]), path="f")
    assert words.slice_at(2) == words[2] == "two"
    assert words.slice_at(-3) == "one"
    with pytest.raises(FileFormatError) as caught:
        words.slice_at(1)
    assert caught.value.path == "f"
    with pytest.raises(OutOfRangeError):
        words.slice_at(3)
