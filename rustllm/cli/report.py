"""An exception as one or two lines for a person, or one document for a program."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from rustllm.errors import RustLLMError

__all__ = ["classify", "report"]

EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h: a fault of ours, not of the input
_PLAIN = (str, int, float, bool, type(None))


def classify(error: BaseException) -> tuple[str, str, str | None, int]:
    """Return the stable code, the message, the hint and the exit status of an exception.

    Examples
    --------
    >>> from rustllm.cli.report import classify
    >>> from rustllm.errors import FileMissingError
    >>> classify(FileMissingError("no such file", path="m.gguf", hint="check the name"))
    ('file.missing', 'm.gguf: no such file', 'check the name', 3)
    """
    if isinstance(error, RustLLMError):
        text = str(error)
        if error.hint:
            text = text.removesuffix(f" ({error.hint})")
        return error.code, text, error.hint, error.exit_code
    if isinstance(error, MemoryError):
        return "memory.exhausted", str(error) or "out of memory", None, 6
    if isinstance(error, OSError):
        text = error.strerror or str(error)
        if error.filename is not None:
            text = f"{error.filename}: {text}"
        return "file.access", text, None, 3
    text = f"internal error: {type(error).__name__}: {error}"
    return "internal", text, "run again with --debug and report what it prints", EXIT_INTERNAL


def report(
    error: BaseException, *, json: bool = False, command: str | None = None, debug: bool = False
) -> int:
    """Print an exception and return the exit status for it.

    The text goes to stderr; with ``json`` a document with the same facts goes to stdout as well.
    """
    code, message, hint, status = classify(error)
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    print(f"rustllm: error: {_one_line(message)}", file=sys.stderr)
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)
    for note in getattr(error, "__notes__", ()):
        print(f"  {note}", file=sys.stderr)
    if json:
        from rustllm.cli.output import Output

        fields: dict[str, Any] = getattr(error, "fields", {})
        Output(json=True).document(
            "error",
            command=command,
            code=code,
            message=message,
            hint=hint,
            exit_code=status,
            fields={k: v if isinstance(v, _PLAIN) else str(v) for k, v in fields.items()},
        )
    return status


def _one_line(text: str) -> str:
    # Names and keys out of a damaged file must not move the cursor or change colours.
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
