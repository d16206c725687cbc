"""Archives are walked on request, in order, in bounded memory; damage and bombs are errors."""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile

import pytest

from rustllm.errors import (
    FileFormatError,
    FileMissingError,
    MemoryLimitError,
    StateError,
    UnsupportedError,
)
from rustllm.loaders import archives
from rustllm.loaders.archives import open_archive

FILES = {"b/one.txt": b"one " * 500, "a.txt": b"", "../../etc/x": b"three", "ß 語.txt": b"four"}


def a_zip(path, files=FILES, how=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", how) as out:
        out.writestr("b/", "")
        for name, data in files.items():
            out.writestr(name, data)
    return path


def a_tar(files=FILES, format=tarfile.PAX_FORMAT):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=format) as out:
        folder = tarfile.TarInfo("b")
        folder.type = tarfile.DIRTYPE
        out.addfile(folder)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
    return held.getvalue()


def read(path, **options):
    with open_archive(path, **options) as archive:
        return {member.name: member.open().read() for member in archive}


@pytest.mark.parametrize(
    "how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_zip_is_read_in_its_order(tmp_path, how):
    path = a_zip(tmp_path / "x", how=how)
    assert list(read(path).items()) == list(FILES.items())


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_is_read_in_its_order_however_it_is_compressed(tmp_path, pack, format):
    files = {**FILES, "long/" + "n" * 300: b"x" * 1000}
    (tmp_path / "x").write_bytes(pack(a_tar(files, format)))
    assert list(read(tmp_path / "x").items()) == list(files.items())


def test_members_have_sizes_and_places_and_nothing_is_written(tmp_path):
    path = a_zip(tmp_path / "x.zip")
    with open_archive(path) as archive:
        told = [(member.index, member.size) for member in archive]
    assert told == [(i, len(data)) for i, data in enumerate(FILES.values())]
    assert [p.name for p in tmp_path.rglob("*")] == ["x.zip"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_only_the_last_member_can_be_read(tmp_path, kind):
    path = tmp_path / "x"
    a_zip(path) if kind == "zip" else path.write_bytes(a_tar())
    with open_archive(path) as archive:
        first, second = None, None
        for member in archive:
            if first is None:
                first, stream = member, member.open()
                with pytest.raises(StateError):
                    member.open()
            elif second is None:
                second = member
                with pytest.raises(StateError):
                    first.open()
                with pytest.raises(StateError):
                    stream.read(1)


def test_links_and_devices_are_refused(tmp_path):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as out:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo("x")
            entry.type, entry.linkname = kind, "/etc/passwd"
            out.addfile(entry)
    (tmp_path / "x").write_bytes(held.getvalue())
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "y", "w") as out:
        out.writestr(entry, "/etc/passwd")
    n = 0
    for path in (tmp_path / "x", tmp_path / "y"):
        with open_archive(path) as archive:
            for member in archive:
                n += 1
                with pytest.raises(UnsupportedError):
                    member.open()
    assert n == 5


def test_an_encrypted_member_is_refused_and_the_others_are_read(tmp_path):
    path = a_zip(tmp_path / "x")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    at = data.index(b"PK\x01\x02", at + 1)  # the first is a folder
    data[at + 8] |= 1
    path.write_bytes(data)
    with open_archive(path) as archive:
        for member in archive:
            if member.index == 0:
                with pytest.raises(UnsupportedError, match="encrypted"):
                    member.open()
            else:
                assert member.open().read() == FILES[member.name]


@pytest.mark.parametrize("make", [lambda p: a_zip(p).read_bytes(), lambda p: a_tar()])
def test_an_archive_cut_anywhere_is_an_error(tmp_path, make):
    data = make(tmp_path / "whole")
    path = tmp_path / "x"
    last = len(data) if data.startswith(b"PK") else data.rindex(b"four") + 512
    for n in {*range(1, last, 97), last - 1, *range(512, last, 512)}:
        path.write_bytes(data[:n])
        with pytest.raises((FileFormatError, UnsupportedError)):
            read(path)


def test_a_flipped_byte_of_a_member_is_an_error(tmp_path):
    path = a_zip(tmp_path / "x", how=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"one one")] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="damaged"):
        read(path)


def test_bombs_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_BOMB_BYTES", 1 << 20)
    path = a_zip(tmp_path / "one", {"x": bytes(1 << 21)})
    with pytest.raises(FileFormatError, match="bomb"):
        open_archive(path)
    path = a_zip(tmp_path / "overlap", {"x": b"abc" * 50, "y": b"abc" * 50})
    data = bytearray(path.read_bytes())
    first = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"][1]
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="overlap"):
        open_archive(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_are_counted(tmp_path, kind):
    path = tmp_path / "x"
    a_zip(path) if kind == "zip" else path.write_bytes(a_tar())
    assert len(read(path, max_members=5)) == 4
    with pytest.raises(FileFormatError, match="more than 2"):
        read(path, max_members=2)


def test_lists_and_names_are_bounded(tmp_path, monkeypatch):
    path = a_zip(tmp_path / "x")
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    path.write_bytes(data[: end + 12] + struct.pack("<L", 1 << 30) + data[end + 16 :])
    with pytest.raises(FileFormatError, match="longer than the zip"):
        open_archive(path)
    monkeypatch.setattr(archives, "_MOST_LIST", 100)
    path.write_bytes(data)
    with pytest.raises(MemoryLimitError):
        open_archive(path)
    entry = tarfile.TarInfo("long")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    path.write_bytes(entry.tobuf() + bytes(4096))
    with pytest.raises(FileFormatError, match="a name of"):
        read(path)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "x").write_text("text")
    with pytest.raises(UnsupportedError, match="no archive"):
        open_archive(tmp_path / "x")
    with pytest.raises(FileMissingError):
        open_archive(tmp_path / "y")
