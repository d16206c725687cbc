"""The plan: which bytes of which file make which unit, and everything that decides the output.

Equal inputs and options give an equal plan, whatever the number of workers; a run resumes only
under the plan that it began with.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rustllm.errors import (
    ArgumentError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    StateError,
)

if TYPE_CHECKING:
    from rustllm.traits import Tokenizer
    from rustllm.types import PathLikeStr

__all__ = ["Input", "Plan", "Unit", "make_plan", "tokenizer_fingerprint"]

VERSION = 1
KINDS = ("text", "lines", "jsonl", "json", "csv", "tsv", "parquet", "arrow")
# Told by the content; what is neither is one text.
_FOUND = ("jsonl", "json", "csv", "tsv", "parquet", "arrow")
# Units of these may begin at any line.
_BY_LINE = ("lines", "jsonl")
_SAMPLE = 1 << 16
_UNIT = 16 << 20


@dataclass(frozen=True)
class Input:
    """A file as it was when the plan was made."""

    path: str
    kind: str
    size: int
    mtime_ns: int
    sample: str
    """SHA-256 of the first and the last 64 KiB."""


@dataclass(frozen=True)
class Unit:
    """Work that is done and committed as one: the lines of an input that begin in a byte range.

    A unit of a compressed file, of a table or of kind "text" is the whole file.
    """

    index: int
    input: int
    start: int
    end: int


@dataclass(frozen=True)
class Plan:
    """Everything that decides the output.

    Attributes
    ----------
    inputs, units : tuple
    tokenizer : str
        Fingerprint, see `tokenizer_fingerprint`.
    options : dict
        ``format``, ``dtype``, ``end_id``, ``field``, ``on_error``, ``n_vocab``.
    """

    inputs: tuple[Input, ...]
    units: tuple[Unit, ...]
    tokenizer: str
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the plan as JSON that is the same for equal plans."""
        values = {"version": VERSION, **asdict(self)}
        return json.dumps(values, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, path: PathLikeStr | None = None) -> Self:
        """Read a plan; FileFormatError when it is none."""
        try:
            values = json.loads(text)
            if values["version"] != VERSION:
                raise FileFormatError(f"a plan of version {values['version']}", path=path)
            return cls(
                tuple(Input(**item) for item in values["inputs"]),
                tuple(Unit(**item) for item in values["units"]),
                values["tokenizer"],
                values["options"],
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"this is no plan: {error}", path=path) from error

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the plan."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def require_same(self, earlier: Plan, path: PathLikeStr) -> None:
        """Raise StateError, naming what differs, unless `earlier` is this plan."""
        if self == earlier:
            return
        parts = ("tokenizer", "options", "units")
        differs = [name for name in parts if getattr(self, name) != getattr(earlier, name)]
        before = {item.path: item for item in earlier.inputs}
        now = {item.path: item for item in self.inputs}
        changed = sorted(p for p in before.keys() | now.keys() if before.get(p) != now.get(p))
        if changed:
            differs = [f"input {p}" for p in changed[:3]] + [d for d in differs if d != "units"]
        raise StateError(
            f"what was begun here cannot be resumed: {', '.join(differs)} changed",
            path=path,
            hint="undo the change, or choose another output folder",
        )


def make_plan(
    inputs: Iterable[PathLikeStr],
    tokenizer: Tokenizer[Any],
    *,
    kind: str | None = None,
    field: str = "text",
    format: str = "bin",
    end_token: int | str | None = "auto",
    dtype: str | None = None,
    unit_bytes: int | None = None,
    on_error: str = "raise",
    walk_archives: bool = False,
) -> Plan:
    """Plan the tokenizing of `inputs`; arguments as in `rustllm.corpus.tokenize`.

    Raises
    ------
    ArgumentError
        There is no input, or an option is out of its range.
    FileMissingError, FileAccessError
        An input cannot be read.
    """
    from rustllm.corpus.formats import choose_dtype

    if unit_bytes is not None and unit_bytes < 1:
        raise ArgumentError(f"unit_bytes must be at least 1, got {unit_bytes}")
    if on_error not in ("raise", "skip", "quarantine"):
        raise ArgumentError(f"on_error must be raise, skip or quarantine, got {on_error!r}")
    if kind is not None and kind not in KINDS:
        raise ArgumentError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    files = _files(inputs)
    if not files:
        raise ArgumentError("there is nothing to tokenize")
    end_id = _end_id(tokenizer, end_token)
    looked = [_look_at(path, kind, walk_archives) for path in files]
    seen = [item for item, _ in looked]
    if unit_bytes is None:
        # Enough units for their ends to matter little, few enough for their commits not to.
        unit_bytes = min(max(sum(item.size for item in seen) // 32, _UNIT // 16), _UNIT)
    units: list[Unit] = []
    for number, (item, whole) in enumerate(looked):
        step = max(item.size, 1) if whole else unit_bytes
        for start in range(0, max(item.size, 1), step):
            units.append(Unit(len(units), number, start, min(start + step, item.size)))
    options = {
        "format": format,
        "dtype": choose_dtype(format, tokenizer.n_vocab, dtype),
        "end_id": end_id,
        "field": field,
        "on_error": on_error,
        "n_vocab": tokenizer.n_vocab,
    }
    return Plan(tuple(seen), tuple(units), tokenizer_fingerprint(tokenizer), options)


def tokenizer_fingerprint(tokenizer: Tokenizer[Any]) -> str:
    """Return a SHA-256 over the vocabulary, the special tokens, and how a text is encoded."""
    digest = hashlib.sha256()
    for part in _vocabulary_of(tokenizer):
        digest.update(part)
    digest.update(json.dumps(sorted(tokenizer.special_tokens.items())).encode())
    # Two tokenizers of one vocabulary may split texts differently.
    probe = "Don't  split 12345 naïve 数字\n\n\tx = y+1; \u00a0\U0001f600 "
    digest.update(json.dumps(tokenizer.encode_ordinary(probe)).encode())
    return digest.hexdigest()


def _vocabulary_of(tokenizer: Tokenizer[Any]) -> Iterator[bytes]:
    """The bytes of every token behind their number; none for an id that is not in use."""
    from rustllm.errors import UnknownTokenError

    bpe = sys.modules.get("rustllm.tokenizers.bpe")  # it is there, if the tokenizer is of it
    if bpe is not None and type(tokenizer).id_to_bytes is bpe.BpeTokenizer.id_to_bytes:
        yield from _table_of(tokenizer)
        return
    for id in range(tokenizer.n_vocab):
        try:
            data = tokenizer.id_to_bytes(id)
        except UnknownTokenError:
            data = b""
        yield len(data).to_bytes(4, "little") + data


def _table_of(tokenizer: Any) -> Iterator[bytes]:
    """The same out of the tables of byte pairs, all at once."""
    import numpy as np

    blob, offsets = tokenizer._encoder.tables()
    n = min(len(offsets) - 1, tokenizer.n_vocab)
    offsets = np.asarray(offsets[: n + 1], np.int64)
    numbers = np.zeros(int(offsets[-1]) + 4 * n, bool)
    numbers[(offsets[:-1] + 4 * np.arange(n))[:, None] + np.arange(4)] = True
    out = np.empty(len(numbers), np.uint8)
    out[numbers] = np.diff(offsets).astype("<u4").view(np.uint8)
    out[~numbers] = np.frombuffer(blob, np.uint8, int(offsets[-1]))
    yield out.tobytes()
    yield bytes(4 * (tokenizer.n_vocab - n))


def _files(inputs: Iterable[PathLikeStr]) -> list[Path]:
    """Return the files that inputs name: themselves, or those in a folder, sorted."""
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = (p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
            found += sorted(files, key=lambda p: p.parts)  # paths ignore case on Windows
        else:
            found.append(path)
    if len(set(found)) < len(found):
        raise ArgumentError("an input is named twice", hint="also through a folder")
    return found


def _look_at(path: Path, kind: str | None, walk_archives: bool) -> tuple[Input, bool]:
    """Return the facts about a file, and whether it can only be read whole."""
    from rustllm.loaders.detect import detect_format

    try:
        status = path.stat()
        with path.open("rb") as file:
            head = file.read(_SAMPLE)
            file.seek(max(0, status.st_size - _SAMPLE))
            tail = file.read(_SAMPLE)
    except FileNotFoundError as error:
        raise FileMissingError("no such file", path=path) from error
    except OSError as error:
        raise FileAccessError(error.strerror or str(error), path=path, errno=error.errno) from error
    found = detect_format(path)
    if walk_archives and found.kind in ("zip", "tar"):
        kind = "archive" if kind is None else f"archive:{kind}"
    elif kind is None:
        kind = found.kind if found.kind in _FOUND else "text"
    sample = hashlib.sha256(head + tail).hexdigest()
    item = Input(path.as_posix(), kind, status.st_size, status.st_mtime_ns, sample)
    return item, kind not in _BY_LINE or found.compression is not None


def _end_id(tokenizer: Tokenizer[Any], end_token: int | str | None) -> int | None:
    specials = tokenizer.special_tokens
    if end_token == "auto":
        for name in ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "<end>"):
            if name in specials:
                return specials[name]
        return None
    if isinstance(end_token, str):
        if end_token not in specials:
            raise ArgumentError(f"the tokenizer has no special token {end_token!r}")
        return specials[end_token]
    if end_token is not None and not 0 <= end_token < tokenizer.n_vocab:
        raise ArgumentError(f"the id {end_token} is not in the vocabulary")
    return end_token
