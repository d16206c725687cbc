"""Every exception that rustllm raises on purpose.

One root, :class:`RustLLMError`; below it a class per failure that a caller can act on, each also a
subclass of the built-in that fits, so that ``except ValueError`` keeps working. An error carries a
stable ``code``, typed attributes that say what and where, and a ``hint`` that says what to do.

:class:`error_context` adds what was being done to any exception that passes through;
:mod:`rustllm.error_conversion` turns foreign exceptions into these at the library's boundaries;
:mod:`rustllm.error_report` prints a whole chain as text or JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from rustllm._core import status as _status
from rustllm._core.context import ErrorFrame, attach, error_context, frames_of
from rustllm._lazy import lazy_names

__all__ = [
    "ArgumentError",
    "CancelledError",
    "ChannelClosedError",
    "ChannelFullError",
    "ConfigError",
    "ContextLengthError",
    "DeadlineError",
    "DisallowedSpecialTokenError",
    "DoubleReleaseError",
    "DownloadError",
    "ErrorFrame",
    "FileAccessError",
    "FileFormatError",
    "FileMissingError",
    "HashMismatchError",
    "InvalidUtf8Error",
    "LiveViewError",
    "ManifestError",
    "MemoryLimitError",
    "MissingDependencyError",
    "ModelError",
    "OutOfMemoryError",
    "OutOfRangeError",
    "PluginError",
    "PluginTrustError",
    "RustLLMError",
    "StaleHandleError",
    "StalePluginError",
    "StateError",
    "TensorError",
    "TokenizerError",
    "TruncatedFileError",
    "UnknownTokenError",
    "UnsupportedError",
    "VersionError",
    "convert_error",
    "convert_errors",
    "error_as_dict",
    "error_as_json",
    "error_chain",
    "error_context",
    "error_frames",
    "error_report",
    "register_conversion",
]

# Needed only once something has failed or at a boundary; kept out of the import of every program.
_LATER = {
    "convert_error": "rustllm.error_conversion",
    "convert_errors": "rustllm.error_conversion",
    "register_conversion": "rustllm.error_conversion",
    "error_as_dict": "rustllm.error_report",
    "error_as_json": "rustllm.error_report",
    "error_chain": "rustllm.error_report",
    "error_report": "rustllm.error_report",
}

if TYPE_CHECKING:
    from rustllm.error_conversion import convert_error as convert_error
    from rustllm.error_conversion import convert_errors as convert_errors
    from rustllm.error_conversion import register_conversion as register_conversion
    from rustllm.error_report import error_as_dict as error_as_dict
    from rustllm.error_report import error_as_json as error_as_json
    from rustllm.error_report import error_chain as error_chain
    from rustllm.error_report import error_report as error_report

error_frames = frames_of
__getattr__, __dir__ = lazy_names(__name__, _LATER)


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
        for name, slot in _BUILT_IN_SLOTS.items():
            # OSError and ImportError own these names, so that __getattr__ would never be asked.
            if name in fields and isinstance(self, slot):
                setattr(self, name, fields[name])

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("fields")
        if fields is not None and name in fields:
            return fields[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def frames(self) -> tuple[ErrorFrame, ...]:
        """What was being done, innermost first, from each :class:`error_context` passed."""
        return frames_of(self)

    def report(self) -> str:
        """The error, its context and its causes as readable lines; see :func:`error_report`."""
        from rustllm.error_report import error_report

        return error_report(self)

    def as_json(self, *, indent: int | None = None) -> str:
        """The same as one JSON object; see :func:`error_as_json`."""
        from rustllm.error_report import error_as_json

        return error_as_json(self, indent=indent)

    def __reduce__(self) -> tuple[Any, ...]:
        # A process worker's error must reach its parent even when a field or the cause cannot be
        # pickled: such a part travels as its text.
        fields = {name: _portable(value, repr) for name, value in self.fields.items()}
        frames = tuple(
            ErrorFrame(f.what, {k: _portable(v, repr) for k, v in f.fields.items()})
            for f in self.frames
        )
        cause = self.__cause__
        if cause is not None:
            cause = _portable(cause, _as_own_error)
        return _rebuild, (type(self), self.message, self.hint, fields, frames, cause)

    def __str__(self) -> str:
        text = self._located_message()
        return f"{text} ({self.hint})" if self.hint else text

    def _located_message(self) -> str:
        where = []
        path: str | PathLike[str] | None = self.fields.get("path")
        if path is not None:
            where.append(str(path))
        for name in ("offset", "line", "key", "tensor"):
            value = self.fields.get(name)
            if value is not None:
                where.append(f"{name} {value}")
        return f"{', '.join(where)}: {self.message}" if where else self.message


_BUILT_IN_SLOTS: dict[str, type[Exception]] = {"errno": OSError, "path": ImportError}


def _portable(value: Any, otherwise: Callable[[Any], Any]) -> Any:
    if value is None or type(value) in (str, int, float, bool, bytes):
        return value
    import pickle

    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # whatever a foreign __reduce__ raises
        return otherwise(value)
    return value


def _as_own_error(error: BaseException) -> RustLLMError:
    own = RustLLMError(f"{type(error).__name__}: {error}")
    attach(own, frames_of(error))
    return own


def _rebuild(
    cls: type[RustLLMError],
    message: str,
    hint: str | None,
    fields: dict[str, Any],
    frames: tuple[ErrorFrame, ...] = (),
    cause: BaseException | None = None,
) -> RustLLMError:
    error = cls(message, hint=hint, **fields)
    if frames:
        attach(error, frames)
    if cause is not None:
        error.__cause__ = cause
    return error


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


class StaleHandleError(StateError):
    """A handle to memory that its arena or pool has since taken back."""

    code = "memory.stale"


class LiveViewError(StateError, BufferError):
    """Memory cannot be taken back or moved: views of it are alive.

    Fields: ``n_views``, ``n_bytes`` (in use by them), ``n_pins``.
    """

    code = "memory.live-view"


class DoubleReleaseError(StateError):
    """A lease was released twice."""

    code = "memory.double-release"


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


class InvalidUtf8Error(FileFormatError):
    """Bytes that are not UTF-8. Fields: ``offset`` of the first bad sequence, ``path``."""

    code = "text.utf8"


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


class VersionError(RustLLMError, ValueError):
    """Text that is not a version or a version range. Fields: ``version``."""

    code = "version"
    exit_code = 2


class PluginError(RustLLMError):
    """A plugin cannot be used. Fields: ``plugin``, and ``refusal`` when the resolver said so."""

    code = "plugin"
    exit_code = 7


class ManifestError(PluginError, ValueError):
    """A plugin's manifest breaks the rules. Fields: ``path``, ``line``, ``key``."""

    code = "plugin.manifest"


class PluginTrustError(PluginError):
    """A plugin is not on the allow-list or its files are not the ones that were allowed."""

    code = "plugin.trust"


class StalePluginError(PluginError, RuntimeError):
    """A handle to something of a plugin that has been stopped. Fields: ``plugin``."""

    code = "plugin.stale"


class ChannelClosedError(StateError):
    """The channel is closed, so nothing more will come. Fields: ``channel``."""

    code = "channel.closed"


class ChannelFullError(RustLLMError):
    """The channel holds as much as it may. Fields: ``channel``, ``capacity``."""

    code = "channel.full"


class DeadlineError(RustLLMError, TimeoutError):
    """What was waited for did not happen in time. Fields: ``seconds``."""

    code = "deadline"


_BY_STATUS: dict[int, type[RustLLMError]] = {
    _status.Status.NO_MEMORY: OutOfMemoryError,
    _status.Status.BAD_ARGUMENT: ArgumentError,
    _status.Status.OUT_OF_RANGE: OutOfRangeError,
    _status.Status.BAD_FORMAT: FileFormatError,
    _status.Status.TRUNCATED: TruncatedFileError,
    _status.Status.LIMIT_REACHED: MemoryLimitError,
    _status.Status.NOT_FINITE: ModelError,
    _status.Status.CANCELLED: CancelledError,
    _status.Status.STALE: StaleHandleError,
    _status.Status.CLOSED: StateError,
    _status.Status.LIVE_VIEWS: LiveViewError,
    _status.Status.RELEASED_TWICE: DoubleReleaseError,
    _status.Status.BAD_UTF8: InvalidUtf8Error,
}


def _from_status(code: int, what: str, fields: dict[str, Any]) -> RustLLMError:
    return _BY_STATUS.get(code, RustLLMError)(what, **fields)


_status.register_raiser(_from_status)
