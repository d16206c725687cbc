"""Every exception that rustllm raises on purpose.

One root, :class:`RustLLMError`; below it a class per failure that a caller can act on, each also a
subclass of the built-in that fits, so that ``except ValueError`` keeps working. An error carries a
stable ``code``, typed attributes that say what and where, and a ``hint`` that says what to do.
"""

from __future__ import annotations

from os import PathLike
from typing import Any, ClassVar

from rustllm._core import status as _status

__all__ = [
    "ArgumentError",
    "CancelledError",
    "ConfigError",
    "ContextLengthError",
    "DisallowedSpecialTokenError",
    "DownloadError",
    "FileAccessError",
    "FileFormatError",
    "FileMissingError",
    "HashMismatchError",
    "MemoryLimitError",
    "MissingDependencyError",
    "ModelError",
    "OutOfMemoryError",
    "OutOfRangeError",
    "RustLLMError",
    "StateError",
    "TensorError",
    "TokenizerError",
    "TruncatedFileError",
    "UnknownTokenError",
    "UnsupportedError",
]


class RustLLMError(Exception):
    """Root of all errors of this library.

    Parameters
    ----------
    message : str
        What went wrong, in one sentence.
    hint : str, optional
        What the reader can do about it.
    **fields
        Typed facts: ``path``, ``offset``, ``key``, ... Each becomes an attribute.

    Attributes
    ----------
    code : str
        Stable name of the failure, for programs; never changes between releases.
    exit_code : int
        Exit status of the command line for this class of error.

    Examples
    --------
    >>> from rustllm.errors import RustLLMError
    >>> try:
    ...     raise RustLLMError("no such layer", hint="count from 0", layer=31)
    ... except RustLLMError as error:
    ...     print(error.code, error.layer, error.hint)
    rustllm.error 31 count from 0
    """

    code: ClassVar[str] = "rustllm.error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("fields")
        if fields is not None and name in fields:
            return fields[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.fields)

    def __str__(self) -> str:
        where = []
        path: str | PathLike[str] | None = self.fields.get("path")
        if path is not None:
            where.append(str(path))
        for name in ("offset", "line", "key", "tensor"):
            value = self.fields.get(name)
            if value is not None:
                where.append(f"{name} {value}")
        text = f"{', '.join(where)}: {self.message}" if where else self.message
        return f"{text} ({self.hint})" if self.hint else text


def _rebuild(
    cls: type[RustLLMError], message: str, hint: str | None, fields: dict[str, Any]
) -> RustLLMError:
    return cls(message, hint=hint, **fields)


class ArgumentError(RustLLMError, ValueError):
    """An argument has a value, shape or type that the call cannot use."""

    code = "argument"
    exit_code = 2


class OutOfRangeError(RustLLMError, IndexError):
    """An index, id or position lies outside what exists."""

    code = "out-of-range"
    exit_code = 2


class OutOfMemoryError(RustLLMError, MemoryError):
    """The operating system refused memory."""

    code = "memory.exhausted"
    exit_code = 6


class MemoryLimitError(RustLLMError, MemoryError):
    """A limit that the caller set on an arena, pool or cache was reached."""

    code = "memory.limit"
    exit_code = 6


class StateError(RustLLMError, RuntimeError):
    """The object is closed, stale, busy or in the wrong state for this call."""

    code = "state"


class CancelledError(RustLLMError):
    """Work was stopped on request before it was done."""

    code = "cancelled"
    exit_code = 130


class ConfigError(RustLLMError, ValueError):
    """A setting is unknown, of the wrong type or out of bounds. Fields: ``key``, ``source``."""

    code = "config"
    exit_code = 2


class MissingDependencyError(RustLLMError, ImportError):
    """An optional dependency is needed. Fields: ``extra``, ``package``."""

    code = "dependency.missing"
    exit_code = 5


class FileAccessError(RustLLMError, OSError):
    """The operating system refused a file. Fields: ``path``, ``errno``."""

    code = "file.access"
    exit_code = 3


class FileMissingError(RustLLMError, FileNotFoundError):
    """The file does not exist. Fields: ``path``."""

    code = "file.missing"
    exit_code = 3


class FileFormatError(RustLLMError, ValueError):
    """The content breaks the rules of its format. Fields: ``path``, ``offset``, ``key``..."""

    code = "file.format"
    exit_code = 4


class TruncatedFileError(FileFormatError):
    """The file ends before what it announces."""

    code = "file.truncated"


class UnsupportedError(RustLLMError, ValueError):
    """Valid, but not implemented here: a block type, an architecture, a component."""

    code = "unsupported"
    exit_code = 4


class HashMismatchError(RustLLMError, ValueError):
    """Data differs from its published hash. Fields: ``path``, ``expected``, ``actual``."""

    code = "file.hash"
    exit_code = 4


class DownloadError(RustLLMError, OSError):
    """A download failed. Fields: ``package`` or ``url``."""

    code = "download"
    exit_code = 3


class TokenizerError(RustLLMError, ValueError):
    """Text or ids that this tokenizer cannot turn into the other."""

    code = "tokenizer"
    exit_code = 2


class UnknownTokenError(TokenizerError, KeyError):
    """A token or id that is not in the vocabulary. Fields: ``token``."""

    code = "tokenizer.unknown"

    __str__ = RustLLMError.__str__


class DisallowedSpecialTokenError(TokenizerError):
    """Text holds a special token that the call does not allow. Fields: ``token``, ``position``."""

    code = "tokenizer.special"


class ModelError(RustLLMError, ValueError):
    """A model's hyper-parameters or tensors contradict each other. Fields: ``key``, ``tensor``."""

    code = "model"
    exit_code = 4


class TensorError(ModelError):
    """A tensor is missing, surplus, or of the wrong shape or type. Fields: ``tensor``."""

    code = "model.tensor"


class ContextLengthError(RustLLMError, ValueError):
    """More tokens than the context holds. Fields: ``needed``, ``context``."""

    code = "model.context"
    exit_code = 2


_BY_STATUS: dict[int, type[RustLLMError]] = {
    _status.Status.NO_MEMORY: OutOfMemoryError,
    _status.Status.BAD_ARGUMENT: ArgumentError,
    _status.Status.OUT_OF_RANGE: OutOfRangeError,
    _status.Status.BAD_FORMAT: FileFormatError,
    _status.Status.TRUNCATED: TruncatedFileError,
    _status.Status.LIMIT_REACHED: MemoryLimitError,
    _status.Status.NOT_FINITE: ModelError,
    _status.Status.CANCELLED: CancelledError,
    _status.Status.STALE: StateError,
    _status.Status.CLOSED: StateError,
}


def _from_status(code: int, what: str) -> RustLLMError:
    return _BY_STATUS.get(code, RustLLMError)(what)


_status.register_raiser(_from_status)
