"""What the files in an archive hold: texts, or records, by their content or as was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rustllm.corpus.plan import Input
from rustllm.errors import UnsupportedError

if TYPE_CHECKING:
    from rustllm.loaders.archives import ArchiveMember

__all__ = ["is_archive", "members_of"]

_PEEK = 1 << 16
_TABLES = ("parquet", "arrow")
_RECORDS = ("jsonl", "json", "csv", "tsv")


def is_archive(kind: str) -> bool:
    """Whether an input of this kind is an archive that is walked."""
    return kind.partition(":")[0] == "archive"


def members_of(item: Input, field: str) -> Iterator[Member]:
    """Yield the files in an archive, in their order; each is read before the next.

    Lines come as records whose text is under `field`.
    """
    from rustllm.loaders.archives import open_archive

    with open_archive(item.path) as archive:
        for member in archive:
            yield Member(item, member, field)


class Member:
    """A file in an archive.

    Attributes
    ----------
    name : str
    index : int
    """

    def __init__(self, item: Input, member: ArchiveMember, field: str) -> None:
        self.name = member.name.encode("utf-8", "backslashreplace").decode()
        self.index = member.index
        self._member = member
        self._kind = item.kind.partition(":")[2]
        self._field = field

    @contextmanager
    def open(self) -> Iterator[Content]:
        """Open what the file holds; raises as `ArchiveMember.open` and the loaders do."""
        from rustllm.loaders.detect import detect_format
        from rustllm.loaders.sources import open_bytes

        with ExitStack() as stack:
            raw = self._member.open()
            stream, _ = stack.enter_context(open_bytes(raw))
            source = _Ahead(stream, str(raw.name))  # type: ignore[attr-defined]
            found = detect_format(source.head, name=self.name)
            kind = self._kind or found.kind
            if kind in _TABLES or not (self._kind or found.is_text or kind == "empty"):
                raise UnsupportedError(f"a file of kind {kind} in an archive", path=source.name)
            content = Content(source, kind, self._field)
            if content.records is not None:
                stack.callback(content.records.close)
            yield content


class Content:
    """Records, or a text.

    Attributes
    ----------
    records : iterator or None
        Records, where there are any; lines are records of a text.
    """

    def __init__(self, source: _Ahead, kind: str, field: str) -> None:
        from rustllm.loaders.records import stream_records
        from rustllm.loaders.text import stream_text

        self._source = source
        self.records: Any = None
        if kind in _RECORDS:
            self.records = stream_records(source, kind)
        elif kind == "lines":
            self.records = ({field: line} for line in stream_text(source, unit="line"))

    def pieces(self, size: int) -> Iterator[str]:
        """Yield the text in pieces."""
        from rustllm.loaders.text import stream_text

        with stream_text(self._source, size) as pieces:
            yield from pieces


class _Ahead:
    """A stream whose beginning has been looked at."""

    def __init__(self, stream: Any, name: str) -> None:
        self.name = name
        self.head = b""
        while len(self.head) < _PEEK and (piece := stream.read(_PEEK - len(self.head))):
            self.head += piece
        self._rest = self.head
        self._stream = stream

    def read(self, n: int) -> bytes:
        """Up to `n` bytes; none only at the end."""
        if self._rest:
            data, self._rest = self._rest[:n], self._rest[n:]
            return data
        found: bytes = self._stream.read(n)
        return found
