"""Foreign exceptions into ours, at the library's boundaries.

A boundary is where code that is not ours is called on behalf of a user: the operating system, a
parser of the standard library, an optional package. ``with convert_errors(path=path):`` around such
a call turns what it raises into the class of :mod:`rustllm.errors` that says the same, with
``__cause__`` kept. What nobody registered passes untouched: a mistake in code stays visible as
such.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from rustllm._core.context import attach, frames_of
from rustllm.errors import (
    ArgumentError,
    FileAccessError,
    FileFormatError,
    FileMissingError,
    InvalidUtf8Error,
    MissingDependencyError,
    OutOfMemoryError,
    RustLLMError,
    TruncatedFileError,
)

__all__ = ["convert_error", "convert_errors", "register_conversion"]

P = ParamSpec("P")
R = TypeVar("R")
Converter = Callable[[Any, dict[str, Any]], RustLLMError | None]

# Keys are classes, or qualified names so that no module is imported only to name its error. The
# mapping is replaced, never changed, so that readers need no lock.
_converters: dict[type[BaseException] | str, Converter] = {}


def register_conversion(
    *kinds: type[BaseException] | str,
) -> Callable[[Converter], Converter]:
    """Decorate a function that turns exceptions of `kinds` into one of ours.

    Parameters
    ----------
    *kinds : type or str
        Exception classes, or their qualified names (``"zipfile.BadZipFile"``), whose module is then
        not imported. Subclasses are included; the nearest class in the method resolution order
        wins. Registering a kind again replaces it.

    Returns
    -------
    callable
        A decorator for ``converter(error, fields) -> RustLLMError | None``. `fields` are those
        given to :func:`convert_errors`; ``None`` leaves the exception alone.

    Notes
    -----
    Thread safety: may be called at any time; a conversion under way uses the old table or the new.

    Examples
    --------
    >>> from rustllm.errors import FileFormatError, convert_error, register_conversion
    >>> class AcmeError(Exception):
    ...     pass
    >>> @register_conversion(AcmeError)
    ... def from_acme(error, fields):
    ...     return FileFormatError(f"acme: {error}", **fields)
    >>> convert_error(AcmeError("bad block"), path="x.acme")
    FileFormatError('acme: bad block')
    """
    if not kinds:
        raise ArgumentError("name at least one kind of exception")

    def register(converter: Converter) -> Converter:
        global _converters
        _converters = {**_converters, **dict.fromkeys(kinds, converter)}
        return converter

    return register


def convert_error(error: BaseException, **fields: Any) -> RustLLMError | None:
    """The error of ours that says what `error` says, or ``None`` when nothing fits.

    Parameters
    ----------
    error : BaseException
        What was raised.
    **fields
        Facts about the boundary, such as ``path=``; they become fields of the result.

    Returns
    -------
    RustLLMError or None
        With `error` as its ``__cause__`` and the frames it had collected. An error that is ours
        already comes back itself.

    Examples
    --------
    >>> from rustllm.errors import convert_error
    >>> try:
    ...     open("no/such/file")
    ... except OSError as error:
    ...     print(type(convert_error(error)).__name__)
    FileMissingError
    """
    if isinstance(error, RustLLMError):
        return error
    table = _converters
    for cls in type(error).__mro__:
        converter = table.get(cls) or table.get(f"{cls.__module__}.{cls.__qualname__}")
        if converter is not None:
            own = converter(error, dict(fields))
            if own is not None:
                own.__cause__ = error
                frames = frames_of(error)
                if frames:
                    attach(own, frames)
            return own
    return None


class convert_errors:  # noqa: N801 (reads as a statement: `with convert_errors(...)`)
    """Convert the foreign exceptions that leave a block or a function.

    Parameters
    ----------
    **fields
        Facts about the boundary, such as ``path=``; they become fields of the converted error.

    Notes
    -----
    Use it as a context manager, or as a decorator of a function or coroutine function. Exceptions
    that are not an :class:`Exception` (interrupts, exits, cancellation) always pass.

    Thread safety: holds nothing but its fields; one object may serve many threads.

    Examples
    --------
    >>> import json
    >>> from rustllm.errors import FileFormatError, convert_errors
    >>> try:
    ...     with convert_errors(path="config.json"):
    ...         json.loads('{"a": ?}')
    ... except FileFormatError as error:
    ...     print(error.path, error.offset, type(error.__cause__).__name__)
    config.json 6 JSONDecodeError
    """

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def __enter__(self) -> convert_errors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, RustLLMError):
            own = convert_error(error, **self.fields)
            if own is not None:
                raise own from error

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if iscoroutinefunction(function):

            @wraps(function)
            async def converting_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast(Callable[P, R], converting_async)

        @wraps(function)
        def converting(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return converting


def _with_path(error: OSError, fields: dict[str, Any]) -> dict[str, Any]:
    if error.filename is not None:
        fields.setdefault("path", error.filename)
    return fields


@register_conversion(OSError)
def _from_os(error: OSError, fields: dict[str, Any]) -> RustLLMError:
    fields = _with_path(error, fields)
    if error.errno is not None:
        fields.setdefault("errno", error.errno)
    hint = {errno.ENOSPC: "free some disk space", errno.EMFILE: "raise the limit on open files"}
    fields.setdefault("hint", hint.get(error.errno or 0))
    return FileAccessError(error.strerror or str(error) or type(error).__name__, **fields)


@register_conversion(FileNotFoundError)
def _from_missing(error: FileNotFoundError, fields: dict[str, Any]) -> RustLLMError:
    fields = _with_path(error, fields)
    if error.errno is not None:
        fields.setdefault("errno", error.errno)
    return FileMissingError("no such file or directory", **fields)


@register_conversion(MemoryError)
def _from_memory(error: MemoryError, fields: dict[str, Any]) -> RustLLMError:
    return OutOfMemoryError(str(error) or "out of memory", **fields)


@register_conversion(UnicodeDecodeError)
def _from_decode(error: UnicodeDecodeError, fields: dict[str, Any]) -> RustLLMError:
    fields.setdefault("offset", error.start)
    fields.setdefault("encoding", error.encoding)
    is_utf8 = error.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    cls = InvalidUtf8Error if is_utf8 else FileFormatError
    return cls(f"not {error.encoding}: {error.reason}", **fields)


@register_conversion(UnicodeEncodeError)
def _from_encode(error: UnicodeEncodeError, fields: dict[str, Any]) -> RustLLMError:
    fields.setdefault("position", error.start)
    fields.setdefault("encoding", error.encoding)
    return ArgumentError(f"text that {error.encoding} cannot encode: {error.reason}", **fields)


@register_conversion("json.decoder.JSONDecodeError")
def _from_json(error: Any, fields: dict[str, Any]) -> RustLLMError:
    fields.setdefault("offset", error.pos)
    fields.setdefault("line", error.lineno)
    fields.setdefault("column", error.colno)
    return FileFormatError(f"not JSON: {error.msg}", **fields)


@register_conversion("tomllib.TOMLDecodeError")
def _from_toml(error: ValueError, fields: dict[str, Any]) -> RustLLMError:
    return FileFormatError(f"not TOML: {error}", **fields)


@register_conversion(EOFError)
def _from_end(error: EOFError, fields: dict[str, Any]) -> RustLLMError:
    return TruncatedFileError(str(error) or "the data ends too early", **fields)


@register_conversion("struct.error")
def _from_struct(error: Exception, fields: dict[str, Any]) -> RustLLMError:
    message = str(error)
    short = "requires a buffer of" in message
    return (TruncatedFileError if short else FileFormatError)(message, **fields)


@register_conversion("zlib.error", "_lzma.LZMAError", "zipfile.BadZipFile", "gzip.BadGzipFile")
def _from_compression(error: Exception, fields: dict[str, Any]) -> RustLLMError:
    return FileFormatError(f"damaged compressed data: {error}", **fields)


@register_conversion(RecursionError)
def _from_recursion(error: RecursionError, fields: dict[str, Any]) -> RustLLMError:
    return FileFormatError("nested too deeply", **fields)


@register_conversion(ImportError)
def _from_import(error: ImportError, fields: dict[str, Any]) -> RustLLMError:
    name = error.name
    if name is not None:
        package = name.partition(".")[0]
        fields.setdefault("package", package)
        fields.setdefault("hint", f"pip install {package}")
    return MissingDependencyError(str(error) or "an import failed", **fields)
