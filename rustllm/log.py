"""Logging: the standard library's, with structured fields and sinks.

Nothing is installed by default: no handler, no level, so an application's own logging set-up rules,
and without one Python prints warnings to standard error. ``RUSTLLM_LOG`` asks for more::

    RUSTLLM_LOG=debug                          everything
    RUSTLLM_LOG=info,rustllm.plugins=debug     one part in detail
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any

from rustllm.errors import ArgumentError, ConfigError

__all__ = ["Logger", "Sink", "add_sink", "as_json_line", "get_logger", "set_levels"]

ROOT = "rustllm"
ENVIRONMENT = "RUSTLLM_LOG"
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}
_environment_read = False
_environment_lock = threading.Lock()


class Logger:
    """A logger whose calls take fields by keyword.

    Parameters
    ----------
    name : str
        Full name, such as ``"rustllm.plugins"``.

    Notes
    -----
    Fields are put behind the message as ``key=value`` for plain handlers, and stay apart, as the
    record's ``fields`` attribute, for sinks. A call below the level costs one comparison.
    Safe to share between threads, as the standard library's loggers are.

    Examples
    --------
    >>> from rustllm.log import add_sink, get_logger
    >>> seen = []
    >>> with add_sink(seen.append):
    ...     get_logger("example").warning("slow read", path="a.txt", seconds=2)
    >>> seen[0]["message"], seen[0]["fields"]
    ('slow read', {'path': 'a.txt', 'seconds': 2})
    """

    __slots__ = ("name", "standard")

    def __init__(self, name: str) -> None:
        self.name = name
        self.standard = logging.getLogger(name)

    def debug(self, message: str, /, **fields: Any) -> None:
        """Log what a developer of this library wants to see."""
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: Any) -> None:
        """Log what goes as it should."""
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: Any) -> None:
        """Log what went wrong and was survived."""
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: Any) -> None:
        """Log what failed."""
        self._log(logging.ERROR, message, fields)

    def is_enabled(self, level: str) -> bool:
        """Whether a message at `level` ("debug", "info", "warning", "error") would be used."""
        return self.standard.isEnabledFor(_level_number(level))

    def _log(self, level: int, message: str, fields: dict[str, Any]) -> None:
        if not self.standard.isEnabledFor(level):
            return
        text = f"{message} {_fields_as_text(fields)}" if fields else message
        extra = {"plain_message": message, "fields": fields}
        self.standard.log(level, "%s", text, extra=extra, stacklevel=3)


def _fields_as_text(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_value_as_text(value)}" for key, value in fields.items())


def _value_as_text(value: object) -> str:
    text = str(value)
    if isinstance(value, BaseException):
        text = f"{type(value).__name__}: {text}" if text else type(value).__name__
    return repr(text) if not text or any(c.isspace() or c in "\"'=" for c in text) else text


def _level_number(level: str) -> int:
    number = _LEVELS.get(level.strip().lower())
    if number is None:
        raise ArgumentError(f"no log level {level!r}", hint=f"one of {', '.join(_LEVELS)}")
    return number


def get_logger(name: str = "") -> Logger:
    """Return the logger of a part of the library.

    Parameters
    ----------
    name : str
        Part, such as ``"plugins"``; the empty name is the library as a whole.

    Returns
    -------
    Logger

    Raises
    ------
    ConfigError
        At the first call in a process, when ``RUSTLLM_LOG`` cannot be understood.
    """
    global _environment_read
    if not _environment_read:
        with _environment_lock:
            text = "" if _environment_read else os.environ.get(ENVIRONMENT, "")
            _environment_read = True
        if text:
            try:
                set_levels(text)
            except ArgumentError as error:
                raise ConfigError(
                    error.message, hint=error.hint, key="log", source=ENVIRONMENT
                ) from None
            if not logging.getLogger().handlers and not logging.getLogger(ROOT).handlers:
                add_sink(_print_to_stderr)
    if not name or name == ROOT:
        return Logger(ROOT)
    return Logger(name if name.startswith(ROOT + ".") else f"{ROOT}.{name}")


def set_levels(text: str) -> None:
    """Set levels from text such as ``"info,rustllm.plugins=debug"``.

    Raises
    ------
    ArgumentError
        A level is not one of debug, info, warning, error, off.
    """
    wanted = []
    for part in text.split(","):
        name, separator, level = part.strip().rpartition("=")
        if not separator:
            name = ROOT
        if name != ROOT and not name.startswith(ROOT + "."):
            name = f"{ROOT}.{name}"
        wanted.append((name, _level_number(level)))
    for name, number in wanted:
        logging.getLogger(name).setLevel(number)


class Sink(logging.Handler):
    """Where messages go; close it, or leave its ``with`` block, to take it away again."""

    def __init__(
        self, receive: Callable[[dict[str, Any]], object], level: int, target: logging.Logger
    ) -> None:
        super().__init__(level)
        self._receive = receive
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record on; a failing receiver is reported and never raises into the caller."""
        try:
            self._receive(
                {
                    "time": record.created,
                    "level": record.levelname.lower(),
                    "logger": record.name,
                    "message": getattr(record, "plain_message", None) or record.getMessage(),
                    "fields": dict(getattr(record, "fields", {})),
                }
            )
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Take the sink away."""
        self._target.removeHandler(self)
        super().close()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def add_sink(
    receive: Callable[[dict[str, Any]], object], *, level: str = "debug", logger: str = ""
) -> Sink:
    """Send messages to `receive` as dictionaries.

    Parameters
    ----------
    receive : callable
        Takes ``{"time", "level", "logger", "message", "fields"}``; called in the thread that logs.
        Keep it short, or let it put the message on a queue.
    level : str
        Least level to hand on. The loggers' own levels come first, see :func:`set_levels`.
    logger : str
        Part of the library to listen to; empty means all of it.

    Returns
    -------
    Sink
    """
    target = get_logger(logger).standard if logger else logging.getLogger(ROOT)
    sink = Sink(receive, _level_number(level), target)
    target.addHandler(sink)
    return sink


def as_json_line(stream: IO[str]) -> Callable[[dict[str, Any]], object]:
    """Return a receiver for :func:`add_sink` that writes one JSON object a line to `stream`."""

    def write(message: dict[str, Any]) -> None:
        stream.write(json.dumps(message, default=_value_as_text, ensure_ascii=False) + "\n")
        stream.flush()

    return write


def _print_to_stderr(message: dict[str, Any]) -> None:
    fields = _fields_as_text(message["fields"])
    print(
        f"{message['level']}: {message['logger']}: {message['message']}{' ' if fields else ''}"
        f"{fields}",
        file=sys.stderr,
    )
