"""Encodings by name, found without the network where that is possible.

In order: the file that the caller names, an installed package that carries the vocabulary,
tiktoken's cache, our cache, the original download. What has a published hash is checked against it,
wherever it came from, except a file that the caller names.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rustllm.errors import (
    ArgumentError,
    DownloadError,
    FileMissingError,
    HashMismatchError,
)
from rustllm.tokenizers.encoding import Encoding
from rustllm.tokenizers.tiktoken_format import encoder_from_ranks, read_ranks

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = [
    "encoding_for_model",
    "encoding_name_for_model",
    "get_encoding",
    "list_encoding_names",
]

_SITE = "https://openaipublic.blob.core.windows.net/encodings/"
_EOT = "<|endoftext|>"
_FIM = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
_EOP = "<|endofprompt|>"

_HASHES = {
    "r50k_base": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    "p50k_base": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}


class NamedEncoding(NamedTuple):
    """What a name stands for."""

    ranks: str
    pattern: str
    special_tokens: dict[str, int]


def _harmony() -> dict[str, int]:
    named = {
        "<|startoftext|>": 199998,
        _EOT: 199999,
        "<|return|>": 200002,
        "<|constrain|>": 200003,
        "<|channel|>": 200005,
        "<|start|>": 200006,
        "<|end|>": 200007,
        "<|message|>": 200008,
        "<|call|>": 200012,
    }
    taken = set(named.values())
    reserved = (i for i in range(200000, 201088) if i not in taken)
    return {_EOP: 200018, **named, **{f"<|reserved_{i}|>": i for i in reserved}}


_ENCODINGS = {
    "gpt2": NamedEncoding("r50k_base", "gpt2", {_EOT: 50256}),
    "r50k_base": NamedEncoding("r50k_base", "gpt2", {_EOT: 50256}),
    "p50k_base": NamedEncoding("p50k_base", "gpt2", {_EOT: 50256}),
    "p50k_edit": NamedEncoding(
        "p50k_base", "gpt2", {_EOT: 50256, **dict(zip(_FIM, range(50281, 50284)))}
    ),
    "cl100k_base": NamedEncoding(
        "cl100k_base",
        "cl100k",
        {_EOT: 100257, **dict(zip(_FIM, range(100258, 100261))), _EOP: 100276},
    ),
    "o200k_base": NamedEncoding("o200k_base", "o200k", {_EOT: 199999, _EOP: 200018}),
    "o200k_harmony": NamedEncoding("o200k_base", "o200k", _harmony()),
}

_MODELS = {
    "r50k_base": (
        "davinci curie babbage ada text-davinci-001 text-curie-001 text-babbage-001 text-ada-001 "
        "code-davinci-001 text-similarity-davinci-001 text-similarity-curie-001 "
        "text-similarity-babbage-001 text-similarity-ada-001 text-search-davinci-doc-001 "
        "text-search-curie-doc-001 text-search-babbage-doc-001 text-search-ada-doc-001 "
        "code-search-babbage-code-001 code-search-ada-code-001"
    ),
    "p50k_base": (
        "text-davinci-003 text-davinci-002 code-davinci-002 code-davinci-001 code-cushman-002 "
        "code-cushman-001 davinci-codex cushman-codex"
    ),
    "p50k_edit": "text-davinci-edit-001 code-davinci-edit-001",
    "cl100k_base": (
        "gpt-4 gpt-3.5-turbo gpt-3.5 gpt-35-turbo davinci-002 babbage-002 text-embedding-ada-002 "
        "text-embedding-3-small text-embedding-3-large"
    ),
    "o200k_base": "o1 o3 o4-mini gpt-5 gpt-4.1 gpt-4o",
    "gpt2": "gpt2 gpt-2",
}
_MODEL_TO_NAME = {model: name for name, models in _MODELS.items() for model in models.split()}
_PREFIX_TO_NAME = {
    "o1-": "o200k_base",
    "o3-": "o200k_base",
    "o4-mini-": "o200k_base",
    "gpt-5": "o200k_base",
    "gpt-4.5-": "o200k_base",
    "gpt-4.1-": "o200k_base",
    "chatgpt-4o-": "o200k_base",
    "gpt-4o-": "o200k_base",
    "gpt-4-": "cl100k_base",
    "gpt-3.5-turbo-": "cl100k_base",
    "gpt-35-turbo-": "cl100k_base",
    "gpt-oss-": "o200k_harmony",
    "ft:gpt-4o": "o200k_base",
    "ft:gpt-4": "cl100k_base",
    "ft:gpt-3.5-turbo": "cl100k_base",
    "ft:davinci-002": "cl100k_base",
    "ft:babbage-002": "cl100k_base",
}

_made: dict[str, Encoding] = {}
_lock = threading.Lock()


def list_encoding_names() -> list[str]:
    """Names that `get_encoding` knows, those of tiktoken's plugins (``tiktoken_ext``) among them.

    >>> from rustllm.tokenizers import list_encoding_names
    >>> "cl100k_base" in list_encoding_names()
    True
    """
    from rustllm.tokenizers.tiktoken_plugins import plugin_constructors

    return list(dict.fromkeys([*_ENCODINGS, *plugin_constructors()]))


def encoding_name_for_model(model: str) -> str:
    """Name of the encoding that an OpenAI model uses.

    Raises
    ------
    ArgumentError
        The model is not known. It is a ``KeyError`` too, as in tiktoken.

    >>> from rustllm.tokenizers import encoding_name_for_model
    >>> encoding_name_for_model("gpt-4o-2024-05-13")
    'o200k_base'
    """
    name = _MODEL_TO_NAME.get(model)
    if name is None:
        name = next((n for p, n in _PREFIX_TO_NAME.items() if model.startswith(p)), None)
    if name is None:
        raise _UnknownModelError(
            f"no encoding is known for the model {model!r}",
            hint="name the encoding itself: get_encoding(name)",
        )
    return name


class _UnknownModelError(ArgumentError, KeyError):
    """tiktoken raises KeyError here."""

    __str__ = ArgumentError.__str__


def encoding_for_model(model: str) -> Encoding:
    """The encoding that an OpenAI model uses; see `get_encoding`."""
    return get_encoding(encoding_name_for_model(model))


def get_encoding(name: str, *, vocab: PathLikeStr | None = None) -> Encoding:
    """The encoding called `name`, as tiktoken has it.

    Parameters
    ----------
    name : str
        One of `list_encoding_names()`. What is built in is not replaced by a plugin's.
    vocab : path, optional
        File of ranks to use, instead of looking for the one that belongs to the name.

    Returns
    -------
    Encoding
        One object per name, unless `vocab` is given.

    Raises
    ------
    ArgumentError
        The name is not known.
    FileMissingError, FileFormatError
        `vocab` cannot be read.
    DownloadError
        The ranks are nowhere on this machine and cannot be downloaded.
    HashMismatchError
        What was found or downloaded is not what was published.
    """
    known = _ENCODINGS.get(name)
    if known is None:
        return _from_plugin(name)
    if vocab is not None:
        try:
            data = Path(vocab).read_bytes()
        except FileNotFoundError:
            raise FileMissingError("no such file", path=os.fspath(vocab)) from None
        return _make(name, known, data, vocab)
    encoding = _made.get(name)
    if encoding is None:
        with _lock:
            encoding = _made.get(name)
            if encoding is None:
                encoding = _make(name, known, _find_ranks(known.ranks), None)
                _made[name] = encoding
    return encoding


def _from_plugin(name: str) -> Encoding:
    """An encoding that an installed plugin of tiktoken defines."""
    from rustllm.tokenizers.tiktoken_plugins import plugin_constructors

    if name in _made:
        return _made[name]
    constructor = plugin_constructors().get(name)
    if constructor is None:
        names = ", ".join(list_encoding_names())
        raise ArgumentError(f"unknown encoding {name!r}", hint=f"known are {names}")
    encoding = Encoding(**constructor())
    with _lock:
        return _made.setdefault(name, encoding)


def _make(name: str, known: NamedEncoding, data: bytes, path: PathLikeStr | None) -> Encoding:
    encoder = encoder_from_ranks(read_ranks(data, path), known.special_tokens, known.pattern)
    encoding = Encoding.__new__(Encoding)
    super(Encoding, encoding).__init__(encoder, name=name, special_tokens=known.special_tokens)
    return encoding


def _find_ranks(ranks: str) -> bytes:
    url = f"{_SITE}{ranks}.tiktoken"
    for read in (_from_package, _from_tiktoken_cache, _from_our_cache):
        data = read(ranks, url)
        if data is not None:
            return data
    return _download(ranks, url)


def _hash(name: str, data: bytes) -> str:
    # OpenSSL takes 5 ms to import, which a caller who names a file need not wait for.
    import hashlib

    return hashlib.new(name, data).hexdigest()


def _is_right(ranks: str, data: bytes) -> bool:
    return _hash("sha256", data) == _HASHES[ranks]


def _from_package(ranks: str, url: str) -> bytes | None:
    """The copy that the bpe-openai package carries."""
    from importlib.util import find_spec

    try:
        spec = find_spec("bpe_openai")
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / "data" / f"{ranks}.tiktoken.gz"
        if path.is_file():
            import gzip
            import zlib

            try:
                data = gzip.decompress(path.read_bytes())
            except (OSError, EOFError, zlib.error):
                continue
            if _is_right(ranks, data):
                return data
    return None


def _from_tiktoken_cache(ranks: str, url: str) -> bytes | None:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        import tempfile

        folder = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    if not folder:
        return None
    return _read_if_right(Path(folder) / _hash("sha1", url.encode()), ranks)


def _cached(ranks: str) -> Path:
    from rustllm.cache import cache_dir

    return cache_dir() / "encodings" / f"{ranks}.tiktoken"


def _from_our_cache(ranks: str, url: str) -> bytes | None:
    return _read_if_right(_cached(ranks), ranks)


def _read_if_right(path: Path, ranks: str) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if _is_right(ranks, data) else None


def _download(ranks: str, url: str) -> bytes:
    from urllib.error import URLError
    from urllib.request import urlopen

    from rustllm.serialize.atomic import atomic_write

    try:
        with urlopen(url, timeout=60) as answer:
            data: bytes = answer.read(1 << 26)
    except (URLError, OSError, ValueError) as error:
        raise DownloadError(
            f"the vocabulary {ranks} is not on this machine and cannot be downloaded: {error}",
            url=url,
            hint="pip install bpe-openai brings it; or set TIKTOKEN_CACHE_DIR, or pass vocab=FILE",
        ) from None
    if not _is_right(ranks, data):
        raise HashMismatchError(
            "the download is not what was published",
            path=url,
            expected=_HASHES[ranks],
            actual=_hash("sha256", data),
        )
    try:
        _cached(ranks).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(_cached(ranks)) as out:
            out.write(data)
    except OSError:
        pass  # a cache that cannot be written costs the next process a download, no more
    return data
