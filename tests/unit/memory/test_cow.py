import gc
import mmap
import pickle
import threading
import weakref

import numpy as np
import pytest

from rustllm import Cow, errors
from rustllm.memory import ByteView


def test_an_array_is_borrowed_until_the_first_write():
    source = np.arange(6).reshape(2, 3)
    cow = Cow(source)
    assert cow.is_borrowed
    assert np.shares_memory(cow.view, source)
    mine = cow.to_mut()
    assert not cow.is_borrowed
    assert cow.to_mut() is mine
    mine[0, 0] = 99
    assert source[0, 0] == 0
    assert cow.view[0, 0] == 99
    assert cow[0, 0] == 99
    assert (len(cow), cow.nbytes) == (2, source.nbytes)


@pytest.mark.parametrize(
    "source", [b"abc", bytearray(b"abc"), memoryview(b"abc"), ByteView(b"abc")]
)
def test_bytes_are_borrowed_until_the_first_write(source):
    cow = Cow(source)
    assert bytes(cow) == b"abc"
    assert cow.view.readonly
    mine = cow.to_mut()
    assert type(mine) is bytearray
    mine[0] = 120
    mine += b"d"
    assert bytes(source) == b"abc"
    assert bytes(cow) == b"xbcd"
    assert (len(cow), cow[3]) == (4, 100)


def test_views_are_read_only_before_and_after_the_copy():
    cow = Cow(np.zeros(3))
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            cow.view[0] = 1
        cow.to_mut()
    with pytest.raises(TypeError):
        Cow(bytearray(3)).view[0] = 1


def test_an_owned_copy_is_independent_each_time():
    for source in (np.arange(3), b"abc"):
        cow = Cow(source)
        first, second = cow.to_owned(), cow.to_owned()
        assert first is not second
        first[0] = 7
        assert cow.is_borrowed
        assert bytes(cow) == bytes(second) == bytes(source)


def test_a_frozen_source_is_read_only_while_anyone_borrows_it():
    source = np.zeros(3)
    first, second = Cow(source, freeze=True), Cow(source, freeze=True)
    third = first.clone()
    for cow in (first, second):
        cow.to_mut()[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            source[0] = 1
    assert third.is_borrowed
    del third
    gc.collect()
    source[0] = 2
    assert source[0] == 2


def test_a_source_that_was_read_only_stays_so():
    source = np.zeros(3)
    source.flags.writeable = False
    Cow(source, freeze=True).to_mut()
    assert not source.flags.writeable


def test_a_writable_buffer_that_is_no_array_cannot_be_frozen():
    with pytest.raises(errors.ArgumentError):
        Cow(bytearray(3), freeze=True)
    assert bytes(Cow(b"abc", freeze=True)) == b"abc"


def test_a_clone_borrows_with_a_borrower_and_copies_from_an_owner():
    source = np.arange(3)
    cow = Cow(source)
    clone = cow.clone()
    assert clone.is_borrowed
    cow.to_mut()[0] = 5
    assert clone[0] == 0
    again = cow.clone()
    assert not again.is_borrowed
    again.to_mut()[0] = 6
    assert cow[0] == 5


def test_arrays_of_any_layout_keep_it():
    source = np.asfortranarray(np.arange(12).reshape(3, 4))[:, ::2]
    cow = Cow(source)
    assert (cow.to_mut() == source).all()
    assert type(Cow(np.ma.masked_array([1, 2])).to_mut()) is np.ndarray


def test_numpy_reads_a_cow_without_a_copy():
    source = np.arange(3)
    cow = Cow(source)
    assert np.shares_memory(np.asarray(cow), source)
    assert np.asarray(cow, dtype="float32").dtype == np.float32
    assert np.asarray(Cow(b"ab")).tolist() == [97, 98]
    copied = np.array(cow)
    copied[0] = 9
    assert source[0] == 0


def test_a_mapped_file_is_borrowed(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc" * 100)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        cow = Cow(mapped)
        with pytest.raises(BufferError):
            mapped.close()
        cow.to_mut()[0] = 0
        gc.collect()
    assert bytes(cow)[:3] == b"\x00bc"


@pytest.mark.parametrize("source", [7, "text", None, [1, 2]])
def test_what_is_neither_array_nor_buffer_is_a_type_error(source):
    with pytest.raises(TypeError):
        Cow(source)


def test_empty_and_odd_buffers():
    assert bytes(Cow(b"")) == b""
    assert Cow(b"").to_mut() == bytearray()
    assert Cow(np.zeros((0, 3))).to_mut().shape == (0, 3)
    assert len(Cow(memoryview(np.zeros((2, 2), "f8")))) == 32
    with pytest.raises(errors.ArgumentError):
        Cow(memoryview(b"abcdef")[::2])


def test_pickles_as_its_content_and_takes_weak_references_and_parameters():
    cow = Cow(np.arange(3))
    assert pickle.loads(pickle.dumps(cow)).to_mut().tolist() == [0, 1, 2]
    assert bytes(pickle.loads(pickle.dumps(Cow(b"ab")))) == b"ab"
    assert weakref.ref(cow)() is cow
    assert "borrowed" in repr(cow)
    assert Cow[bytearray] is not None
    with pytest.raises(errors.ArgumentError):
        cow.__init__(b"")


def test_a_failed_copy_leaves_it_borrowed():
    huge = np.broadcast_to(np.zeros(1, "u1"), (1 << 60,))
    cow = Cow(huge)
    with pytest.raises(MemoryError):
        cow.to_mut()
    assert cow.is_borrowed
    assert cow[12345] == 0


def test_eight_threads_get_the_same_copy():
    for _ in range(20):
        source = np.zeros(100_000, "u1")
        cow = Cow(source, freeze=True)
        start = threading.Barrier(8)
        got = []

        def work(worker, cow=cow, start=start, got=got):
            start.wait()
            mine = cow.to_mut()
            mine[worker] = worker + 1
            got.append(mine)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(mine is got[0] for mine in got)
        assert cow[:8].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
        assert not source.any()
        assert source.flags.writeable
