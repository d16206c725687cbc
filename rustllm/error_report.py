"""One readable report of an exception: its fields, its context and its causes, as text or JSON.

Works on any exception; those of :mod:`rustllm.errors` have more to say. Loaded when first needed.
"""

from __future__ import annotations

from typing import Any

from rustllm._core.context import ErrorFrame, frames_of
from rustllm.errors import RustLLMError

__all__ = ["error_as_dict", "error_as_json", "error_chain", "error_report"]

SCHEMA = 1
_MAX_DEPTH = 16
_MAX_GROUP = 32
_MAX_TEXT = 2000


def error_chain(error: BaseException) -> tuple[BaseException, ...]:
    """The exception and what led to it, latest first, the root cause last.

    Follows ``__cause__``, else ``__context__`` unless it is suppressed, as a traceback does. Safe
    on chains that form a loop.

    Parameters
    ----------
    error : BaseException
        Where to start.

    Returns
    -------
    tuple of BaseException
        At least `error` itself.

    Examples
    --------
    >>> from rustllm.errors import FileFormatError, error_chain
    >>> try:
    ...     try:
    ...         {}["general.architecture"]
    ...     except KeyError as error:
    ...         raise FileFormatError("no architecture", path="tiny.gguf") from error
    ... except FileFormatError as error:
    ...     print([type(link).__name__ for link in error_chain(error)])
    ['FileFormatError', 'KeyError']
    """
    links: list[BaseException] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        links.append(link)
        seen.add(id(link))
        link = _reason(link)
    return tuple(links)


def _reason(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


def error_as_dict(error: BaseException) -> dict[str, Any]:
    """What :func:`error_as_json` writes, as a dictionary of plain values.

    Parameters
    ----------
    error : BaseException
        Any exception.

    Returns
    -------
    dict
        ``schema`` (1), then of the error: ``type``, ``code`` (``None`` for a foreign one),
        ``exit_code``, ``message``, ``hint``, ``fields``, ``frames`` (each ``what`` and ``fields``),
        ``errors`` (the members, of an exception group) and ``causes``: the same of each link of the
        chain, the root cause last. A frame appears once, where it happened: at the link nearest
        the root.
    """
    return {"schema": SCHEMA, **_chain_as_dict(error, 0)}


def error_as_json(error: BaseException, *, indent: int | None = None) -> str:
    """An exception, its context and its causes as one JSON object.

    Parameters
    ----------
    error : BaseException
        Any exception.
    indent : int, optional
        As for :func:`json.dumps`; by default the object is one line.

    Returns
    -------
    str
        JSON with the members that :func:`error_as_dict` lists. Values that JSON does not know are
        written as text.

    Examples
    --------
    >>> import json
    >>> from rustllm.errors import FileFormatError, error_as_json
    >>> facts = json.loads(error_as_json(FileFormatError("bad magic", path="x.gguf", offset=0)))
    >>> facts["code"], facts["fields"]
    ('file.format', {'path': 'x.gguf', 'offset': 0})
    """
    import json

    return json.dumps(error_as_dict(error), indent=indent, ensure_ascii=False, allow_nan=False)


def error_report(error: BaseException) -> str:
    """An exception, its context and its causes as lines for a person.

    Parameters
    ----------
    error : BaseException
        Any exception.

    Returns
    -------
    str
        Lines joined by newlines, none at the end.

    Examples
    --------
    >>> from rustllm.errors import TruncatedFileError, error_context, error_report
    >>> try:
    ...     with error_context("loading tensor", name="output.weight"):
    ...         raise TruncatedFileError(
    ...             "the file ends inside the tensor", path="x.gguf", hint="download it again"
    ...         )
    ... except TruncatedFileError as error:
    ...     print(error_report(error))
    error[file.truncated]: x.gguf: the file ends inside the tensor
      while loading tensor (name='output.weight')
      hint: download it again
    """
    return "\n".join(_chain_as_lines(error, "", 0))


def _frames_by_link(links: tuple[BaseException, ...]) -> list[list[ErrorFrame]]:
    """Frames of each link, without those that a later link inherited from its cause."""
    seen: set[int] = set()
    result = []
    for link in reversed(links):
        own = [frame for frame in frames_of(link) if id(frame) not in seen]
        seen.update(id(frame) for frame in own)
        result.append(own)
    return result[::-1]


def _chain_as_dict(error: BaseException, depth: int) -> dict[str, Any]:
    links = error_chain(error)
    described = [
        _link_as_dict(link, frames, depth) for link, frames in zip(links, _frames_by_link(links))
    ]
    return {**described[0], "causes": described[1:]}


def _link_as_dict(error: BaseException, frames: list[ErrorFrame], depth: int) -> dict[str, Any]:
    own = error if isinstance(error, RustLLMError) else None
    described: dict[str, Any] = {
        "type": _type_name(error),
        "code": own.code if own else None,
        "exit_code": own.exit_code if own else None,
        "message": own.message if own else _text(error),
        "hint": own.hint if own else None,
        "fields": _plain(own.fields, 0) if own else {},
        "frames": [{"what": f.what, "fields": _plain(f.fields, 0)} for f in frames],
    }
    if isinstance(error, BaseExceptionGroup) and depth < _MAX_DEPTH:
        members = error.exceptions[:_MAX_GROUP]
        described["errors"] = [_chain_as_dict(member, depth + 1) for member in members]
    return described


def _chain_as_lines(error: BaseException, indent: str, depth: int) -> list[str]:
    lines: list[str] = []
    links = error_chain(error)
    for position, (link, frames) in enumerate(zip(links, _frames_by_link(links))):
        lead = "caused by " if position else ""
        own = link if isinstance(link, RustLLMError) else None
        if own:
            text = own._located_message()
            lines.append(f"{indent}{lead}error[{own.code}]: {text}")
        else:
            lines.append(f"{indent}{lead}{_type_name(link)}: {_text(link)}")
        lines += [f"{indent}  while {frame}" for frame in frames]
        if own and own.hint:
            lines.append(f"{indent}  hint: {own.hint}")
        if isinstance(link, BaseExceptionGroup) and depth < _MAX_DEPTH:
            for member in link.exceptions[:_MAX_GROUP]:
                lines += _chain_as_lines(member, indent + "  | ", depth + 1)
            surplus = len(link.exceptions) - _MAX_GROUP
            if surplus > 0:
                lines.append(f"{indent}  | and {surplus} more")
    return lines


def _type_name(error: BaseException) -> str:
    cls = type(error)
    if cls.__module__ in ("builtins", "rustllm.errors"):
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def _text(value: object) -> str:
    """The text of a foreign object, whatever its ``__str__`` does; valid UTF-8, bounded."""
    try:
        text = str(value)
    except Exception as error:  # a report must not fail on what it reports
        text = f"<{type(value).__name__}: str failed with {type(error).__name__}>"
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + "..."
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: Any, depth: int) -> Any:
    """`value` in JSON's types."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        finite = value == value and value not in (float("inf"), float("-inf"))
        return float(value) if finite else _text(value)
    if isinstance(value, str):
        return _text(value)
    if depth < 4:
        if isinstance(value, dict):
            return {_text(key): _plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(item, depth + 1) for item in value]
    item = getattr(value, "item", None)  # numpy's scalars
    if callable(item) and getattr(value, "shape", None) == ():
        return _plain(item(), 4)
    return _text(value)
