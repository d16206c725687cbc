"""The manifest of a finished corpus, read: every field that is used later is checked here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rustllm.corpus.formats import FORMATS
from rustllm.errors import FileAccessError, FileFormatError, FileMissingError

__all__ = ["read_manifest"]

_TOTALS = ("tokens", "documents", "text_bytes", "failures")
_DTYPES = ("uint16", "uint32", "int32")
_INDEX = {"bin": "lengths.npy", "npy": "lengths.npy", "megatron": "tokens.idx"}


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest at `path`.

    Raises
    ------
    FileMissingError
        There is none: the corpus was not finished.
    FileFormatError
        It lacks a field, or a field is not what it must be.
    """
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileMissingError(
            "there is no finished corpus here", path=path, hint="run corpus tokenize again"
        ) from error
    except OSError as error:
        raise FileAccessError(error.strerror or str(error), path=path, errno=error.errno) from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"this is no manifest: {error}", path=path) from error
    wrong = _what_is_wrong(manifest)
    if wrong is not None:
        raise FileFormatError(f"this is no manifest: {wrong}", path=path, key=wrong.split()[0])
    checked: dict[str, Any] = manifest
    return checked


def _what_is_wrong(manifest: Any) -> str | None:
    if not isinstance(manifest, dict):
        return "the whole is no object"
    for name in _TOTALS:
        if not _is_count(manifest.get(name)):
            return f"{name} is no count"
    for name in ("plan", "tokenizer"):
        if not isinstance(manifest.get(name), str):
            return f"{name} is no text"
    options = manifest.get("options")
    if not isinstance(options, dict):
        return "options is no object"
    format = options.get("format")
    if not isinstance(format, str) or format not in FORMATS:
        return "format is not one that is known"
    if options.get("dtype") not in _DTYPES:
        return "dtype is not one that is known"
    if not _is_count(options.get("n_vocab")):
        return "n_vocab is no count"
    files = manifest.get("files")
    if not isinstance(files, dict) or not {FORMATS[format], _INDEX[format]} <= files.keys():
        return "files does not name the files of the corpus"
    for name, facts in files.items():
        if "/" in name or "\\" in name:
            return "files names one outside the folder"
        if not _has(facts, ("bytes",), "sha256"):
            return "files lacks a size or a hash"
    sources = manifest.get("sources")
    numbers = ("bytes", "tokens", "documents")
    if not isinstance(sources, list) or not all(_has(one, numbers, "path") for one in sources):
        return "sources is no list of inputs"
    return None


def _has(facts: Any, counts: tuple[str, ...], text: str) -> bool:
    return (
        isinstance(facts, Mapping)
        and all(_is_count(facts.get(name)) for name in counts)
        and isinstance(facts.get(text), str)
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62
