"""What a file is, told by its content; its name decides only between kinds of text."""

from __future__ import annotations

import codecs
import json
import os
import re
import struct
from os import PathLike
from typing import NamedTuple

from rustllm.loaders.compression import compression_of

__all__ = ["FileFormat", "detect_encoding", "detect_format"]

_PEEK = 1 << 16

_BOMS = (
    # UTF-32's mark begins with UTF-16's: longest first.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_MAGICS = (
    (b"GGUF", "gguf"),
    (b"\x93NUMPY", "npy"),
    (b"PAR1", "parquet"),
    (b"ARROW1\0\0", "arrow"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"%PDF-", "pdf"),
    (b"\x7fELF", "binary"),
    (b"\x89PNG\r\n", "binary"),
    (b"\xff\xd8\xff", "binary"),
    (b"\x80\x02", "pickle"),
    (b"\x80\x03", "pickle"),
    (b"\x80\x04\x95", "pickle"),
    (b"\x80\x05\x95", "pickle"),
)

_BY_SUFFIX = {".md": "markdown", ".markdown": "markdown", ".csv": "csv", ".tsv": "tsv"}
_BY_SUFFIX |= {".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text", ".text": "text"}
_COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".lz4")
_MARKDOWN = re.compile(r"^(#{1,6} \S|```|[-*] \[.\] |\[[^\]]+\]: |\|[-:| ]+\|$)", re.MULTILINE)
_RANK = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+")


class FileFormat(NamedTuple):
    """What a file is.

    Attributes
    ----------
    kind : str
        ``"text"``, ``"markdown"``, ``"jsonl"``, ``"json"``, ``"csv"``, ``"tsv"``, ``"gguf"``,
        ``"safetensors"``, ``"npy"``, ``"parquet"``, ``"arrow"``, ``"tokenizer-json"``,
        ``"tiktoken"``, ``"sentencepiece"``, ``"zip"``, ``"tar"``, ``"7z"``, ``"rar"``,
        ``"pickle"``, ``"pdf"``, ``"binary"`` or ``"empty"``.
    compression : str or None
        ``"gzip"``, ``"bzip2"``, ``"xz"``, ``"zstd"`` or ``"lz4"`` around it.
    encoding : str or None
        Of text: ``"utf-8"``, ``"utf-16-le"``...; None when it is not Unicode.
    bom : int
        Bytes of the byte order mark that text begins with.
    """

    kind: str
    compression: str | None = None
    encoding: str | None = None
    bom: int = 0

    @property
    def is_text(self) -> bool:
        """Whether the content can be read as text."""
        return self.kind in _TEXT_KINDS


_TEXT_KINDS = ("text", "markdown", "jsonl", "json", "csv", "tsv", "tokenizer-json", "tiktoken")


def detect_format(
    path_or_bytes: str | PathLike[str] | bytes | bytearray | memoryview,
    *,
    name: str = "",
) -> FileFormat:
    """Tell what a file, or the beginning of one, is.

    Parameters
    ----------
    path_or_bytes : path or bytes-like
        A file, of which the first 64 KiB are read (decompressed, if it is compressed), or the
        beginning of its content.
    name : str
        What bytes are called; it decides between kinds of text, as a path does.

    Returns
    -------
    FileFormat

    Raises
    ------
    FileMissingError, FileAccessError
        The file cannot be read.
    FileFormatError, TruncatedFileError
        It is compressed, and damaged at its beginning.
    MissingDependencyError
        It is compressed by zstd or lz4, and the package is missing.

    Notes
    -----
    O(1): no more than the first 64 KiB. The name matters only between kinds of text, and when the
    content fits: a Markdown file without a heading is text otherwise.

    Examples
    --------
    >>> from rustllm.loaders.detect import detect_format
    >>> detect_format(b'{"text": "a"}\\n{"text": "b"}\\n').kind
    'jsonl'
    >>> detect_format("naïve".encode("utf-16")).encoding
    'utf-16-le'
    """
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        head = bytes(path_or_bytes[:_PEEK])
        return _detect(head, len(path_or_bytes) <= _PEEK, name)
    from rustllm.loaders.sources import open_bytes

    path = os.fspath(path_or_bytes)
    with open_bytes(path) as (stream, compression):
        head = _read_up_to(stream, _PEEK + 1)
    found = _detect(head[:_PEEK], len(head) <= _PEEK, path)
    return found._replace(compression=compression)


def _read_up_to(stream: object, n: int) -> bytes:
    pieces = []
    while n > 0:
        piece = stream.read(n)  # type: ignore[attr-defined]
        if not piece:
            break
        pieces.append(piece)
        n -= len(piece)
    return b"".join(pieces)


def _detect(head: bytes, is_whole: bool, path: str) -> FileFormat:
    if not head:
        return FileFormat("empty")
    compression = compression_of(head)
    if compression is not None and not path:
        return _detect_compressed(head, is_whole, compression)
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return FileFormat(kind)
    if _is_safetensors(head):
        return FileFormat("safetensors")
    if len(head) >= 262 and head[257:262] == b"ustar":
        return FileFormat("tar")
    if _is_sentencepiece(head):
        return FileFormat("sentencepiece")
    encoding, bom = detect_encoding(head, is_whole)
    if encoding is None:
        return FileFormat("binary" if _looks_binary(head) else "text")
    text = head[bom:].decode(encoding, "ignore")
    return FileFormat(_text_kind(text, head[bom:], is_whole, path), None, encoding, bom)


def _detect_compressed(head: bytes, is_whole: bool, compression: str) -> FileFormat:
    """What the first bytes of a compressed stream in memory hold."""
    import io

    from rustllm.errors import TruncatedFileError
    from rustllm.loaders.compression import DecompressedStream

    stream = DecompressedStream(io.BytesIO(head), compression, "<memory>")
    pieces: list[bytes] = []
    try:
        while sum(map(len, pieces)) < _PEEK and (piece := stream.read(_PEEK)):
            pieces.append(piece)
    except TruncatedFileError:
        if is_whole and not pieces:
            raise
    inner = _detect(b"".join(pieces)[:_PEEK], False, "<inside>")
    return inner._replace(compression=compression)


def detect_encoding(head: bytes, is_whole: bool = False) -> tuple[str | None, int]:
    """Unicode encoding of text that begins with `head`, and the bytes of its mark.

    Without a mark, UTF-8 is tried, then UTF-16 and UTF-32 by where zeros stand. ``(None, 0)`` when
    it is none of these. A character that `head` cuts is forgiven unless it `is_whole`.

    Examples
    --------
    >>> from rustllm.loaders.detect import detect_encoding
    >>> detect_encoding("ß".encode("utf-32-be"))
    ('utf-32-be', 0)
    >>> detect_encoding(b"\\xef\\xbb\\xbfa"), detect_encoding(b"\\xff\\x80")
    (('utf-8', 3), (None, 0))
    """
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name, len(bom)
    if b"\0" not in head and _decodes(head, "utf-8", is_whole):
        return "utf-8", 0
    for name, width, place in (
        ("utf-32-le", 4, 0),
        ("utf-32-be", 4, 3),
        ("utf-16-le", 2, 0),
        ("utf-16-be", 2, 1),
    ):
        if _has_wide_ascii(head, width, place) and _decodes(head, name, is_whole):
            return name, 0
    return None, 0


def _decodes(data: bytes, encoding: str, is_whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, is_whole)
    except UnicodeDecodeError:
        return False
    return True


def _has_wide_ascii(head: bytes, width: int, place: int) -> bool:
    """Whether units of `width` bytes are zero but for one place in a good part of them.

    Text in any language has spaces, digits, line ends; binary data seldom has such a regular
    pattern, and then it fails to decode.
    """
    n = min(len(head), 4096) // width
    if n == 0 or (len(head) <= 4096 and len(head) % width):
        return False
    ascii_units = 0
    for i in range(0, n * width, width):
        unit = head[i : i + width]
        if unit[place] and unit[place] < 0x80 and not any(unit[:place] + unit[place + 1 :]):
            ascii_units += 1
    zeros = head[: n * width].count(0)
    return (
        ascii_units * 20 >= n and zeros * 20 >= n * (width - 1) or (width == 4 and zeros >= 2 * n)
    )


def _looks_binary(head: bytes) -> bool:
    """More than a few control characters that no text has."""
    odd = sum(b < 32 and b not in (7, 8, 9, 10, 11, 12, 13, 27) for b in head[:4096])
    return odd * 100 > min(len(head), 4096)


def _is_safetensors(head: bytes) -> bool:
    if len(head) < 10 or head[8:9] != b"{":
        return False
    n = struct.unpack_from("<Q", head)[0]
    return 2 <= n <= 100_000_000 and head[9:10] in b'"} \n\t\r'


def _is_sentencepiece(head: bytes) -> bool:
    """A protocol buffer whose first field is a piece: text (1), score (2) and perhaps type (3)."""
    if len(head) < 8 or head[0] != 0x0A or head[1] >= 0x80 or head[2] != 0x0A:
        return False
    length, text = head[1], head[3]
    end = 4 + text
    return text + 7 <= length and head[end : end + 1] == b"\x15"


def _text_kind(text: str, raw: bytes, is_whole: bool, path: str) -> str:
    lines = text.split("\n")
    if not is_whole and len(lines) > 1:
        lines.pop()  # it may be cut
    lines = [line for line in lines if line.strip()]
    hint = _suffix_kind(path)
    if not lines:
        return hint or "text"
    kind = _json_kind(text, lines, is_whole)
    if kind is not None:
        return kind
    if len(lines) > 1 and all(_RANK.fullmatch(line.encode()) for line in lines[:50]):
        return "tiktoken"
    if hint is not None and hint != "jsonl":
        return hint
    for delimiter, name in (("\t", "tsv"), (",", "csv")):
        if _is_table(lines, delimiter):
            return name
    if len(_MARKDOWN.findall(text)) >= 2:
        return "markdown"
    return "text"


def _suffix_kind(path: str) -> str | None:
    name = path.lower()
    for suffix in _COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return _BY_SUFFIX.get(os.path.splitext(name)[1])  # noqa: PTH122 (also of URLs)


def _json_kind(text: str, lines: list[str], is_whole: bool) -> str | None:
    start = text.lstrip()
    if start[:1] not in ("{", "["):
        return None
    first = _parses(lines[0])
    if first and len(lines) > 1:
        return "jsonl" if all(map(_parses, lines[1:20])) else None
    if first:
        whole = "json" if is_whole else "jsonl"
        return "tokenizer-json" if _is_tokenizer(start) else whole
    if not is_whole or _parses(text):
        looks = re.match(r'[\[{]\s*(["{\[\]}\d\-tfn]|$)', start)
        if looks:
            return "tokenizer-json" if _is_tokenizer(start) else "json"
    return None


def _is_tokenizer(text: str) -> bool:
    return text.startswith("{") and '"added_tokens"' in text and '"version"' in text


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_table(lines: list[str], delimiter: str) -> bool:
    """As many delimiters, at least one, in each of the first lines; quoted ones do not count."""
    if len(lines) < 2:
        return False
    bare = [re.sub(r'"(?:[^"]|"")*"', "", line) for line in lines[:20]]
    counts = {line.count(delimiter) for line in bare}
    if len(counts) != 1 or counts == {0}:
        return False
    # Prose may have one comma in each of two lines; a head of a table has no spaces after them.
    return delimiter == "\t" or not any(", " in line for line in bare)
