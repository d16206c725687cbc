"""Run a model file's chat template (jinja2) as what it is: a program by a stranger.

On top of jinja2's immutable sandbox, which keeps a template from attributes that begin with an
underscore and from changing what it is given, this bounds what it may spend: steps (loop rounds and
calls), the length of every text it makes, and the filters and methods it may use. Templates of real
models stay far below the bounds.
"""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rustllm.errors import ArgumentError, MissingDependencyError, UnsupportedError

try:
    from jinja2 import TemplateError, Undefined, nodes
    from jinja2.ext import loopcontrols
    from jinja2.runtime import LoopContext, Macro
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace
except ImportError as error:
    raise MissingDependencyError(
        "this model's chat template needs jinja2",
        hint='run: python -m pip install "rustllm[jinja2]"',
        extra="jinja2",
        package="jinja2",
    ) from error

__all__ = ["Sandbox"]

MAX_STEPS = 200_000
MAX_CHARACTERS = 16 << 20

# fmt: off
_FILTERS = frozenset([
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "indent", "int", "items", "join", "last", "length", "list", "lower", "map",
    "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select",
    "selectattr", "sort", "string", "sum", "title", "tojson", "trim", "truncate", "unique",
    "upper", "wordcount",
])
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset([
        "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha",
        "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle",
        "isupper", "join", "lower", "lstrip", "partition", "removeprefix",
        "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip",
        "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    ]),
    dict: frozenset(["get", "items", "keys", "values"]),
    list: frozenset(["count", "index"]),
    tuple: frozenset(["count", "index"]),
    datetime.datetime: frozenset(),
}
# fmt: on
_KEY = "tokenizer.chat_template"


class Refused(Exception):
    """A template went over a bound; becomes :class:`~rustllm.errors.UnsupportedError`."""


class RaisedByTemplate(Exception):
    """A template called ``raise_exception``; becomes :class:`~rustllm.errors.ArgumentError`."""


class _Spent(threading.local):
    """Steps of the rendering that this thread is at."""

    steps = 0


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def __init__(self) -> None:
        # As transformers renders: block tags take their line end and indentation with them.
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        self.spent = _Spent()
        self.filters = {name: self.filters[name] for name in _FILTERS if name in self.filters}
        self.filters["tojson"] = _tojson
        self.filters["replace"] = _replace
        self.filters["join"] = _join
        self.filters["indent"] = _indent
        self.filters = {name: self._sized(f) for name, f in self.filters.items()}
        self.filters["_counted"] = self.counted
        self.filters["_joined"] = _joined
        self.globals = {
            "range": self.globals["range"],
            "dict": dict,
            "namespace": Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Let every loop count its rounds and every ``~`` its result."""
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None, lineno=loop.lineno)
        _replace_concat(tree)
        return tree

    def step(self) -> None:
        self.spent.steps += 1
        if self.spent.steps > MAX_STEPS:
            raise Refused(f"it takes more than {MAX_STEPS} steps")

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.step()
            yield item

    def _sized(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return _check_size(function(*args, **kwargs))

        # jinja2 marks filters that want the environment or context by this attribute.
        if hasattr(function, "jinja_pass_arg"):
            limited.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return limited

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, (LoopContext, Namespace, Macro, Undefined)):
            return True
        allowed = next((_METHODS[t] for t in type(obj).__mro__ if t in _METHODS), frozenset())
        return attr in allowed

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.step()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            name = obj.__name__
            if name == "replace":
                return _replace(owner, *args, **kwargs)
            if name == "join":
                return _join(args[0] if args else (), owner)
        return _check_size(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.step()
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise Refused(f"it uses the operator {operator}")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, (str, list, tuple)) and isinstance(times, int):
                    _check_length(len(text) * times)
        return _check_size(super().call_binop(context, operator, left, right))


class Sandbox:
    """One compiled template.

    Parameters
    ----------
    source : str
        The template's text.

    Raises
    ------
    UnsupportedError
        It is not a valid template, or uses what the sandbox does not offer.

    Notes
    -----
    Immutable and thread-safe: what a rendering spends is counted per thread.

    Examples
    --------
    >>> from rustllm.models.template_sandbox import Sandbox
    >>> Sandbox("{% for m in messages %}[{{ m.content }}]{% endfor %}").render(
    ...     messages=[{"content": "a"}, {"content": "b"}])
    '[a][b]'
    """

    __slots__ = ("_environment", "_template")

    def __init__(self, source: str) -> None:
        self._environment = _Environment()
        try:
            self._template = self._environment.from_string(source)
        except (TemplateError, RecursionError, MemoryError, OverflowError) as error:
            raise UnsupportedError(
                f"the chat template cannot be read: {error}", key=_KEY
            ) from error

    def render(self, **variables: Any) -> str:
        """Return what the template makes of the variables.

        Raises
        ------
        ArgumentError
            The template refuses the messages.
        UnsupportedError
            It fails, or goes over a bound.
        """
        self._environment.spent.steps = 0
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(**variables):
                length += len(part)
                _check_length(length)
                parts.append(part)
        except RaisedByTemplate as error:
            raise ArgumentError(f"the chat template refuses the messages: {error}") from error
        except Refused as error:
            raise UnsupportedError(f"the chat template was stopped: {error}", key=_KEY) from error
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise UnsupportedError(f"the chat template fails: {error}", key=_KEY) from error
        except (AttributeError, RecursionError, MemoryError) as error:
            raise UnsupportedError(f"the chat template fails: {error}", key=_KEY) from error
        return "".join(parts)


def _check_length(n: int) -> None:
    if n > MAX_CHARACTERS:
        raise Refused(f"it makes a text of more than {MAX_CHARACTERS} characters")


def _check_size(value: Any) -> Any:
    if isinstance(value, (str, list, tuple)):
        _check_length(len(value))
    elif isinstance(value, int) and value.bit_length() > 256:
        raise Refused("it makes a number of more than 256 bits")
    return value


def _replace(value: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = str(value), str(old), str(new)
    times = text.count(old)
    if count is not None and count >= 0:
        times = min(times, count)
    _check_length(len(text) + times * max(len(new) - len(old), 0))
    return text.replace(old, new, times)


def _join(items: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    parts: list[str] = []
    length = 0
    for item in items:
        if attribute is not None:
            item = item[attribute] if isinstance(item, Mapping) else ""
        parts.append(str(item))
        length += len(parts[-1]) + len(separator)
        _check_length(length)
    return str(separator).join(parts)


def _joined(parts: Iterable[Any]) -> str:
    """What ``a ~ b`` makes."""
    return _join(parts)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    lead = width if isinstance(width, str) else " " * min(width, MAX_CHARACTERS)
    lines = str(text).split("\n")
    _check_length(len(text) + len(lead) * len(lines))
    return "\n".join(
        lead + line if (i or first) and (line or blank) else line for i, line in enumerate(lines)
    )


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers does: not escaped for HTML, which jinja2's own would be."""
    if indent is not None and not 0 <= indent <= 16:
        raise Refused(f"it indents JSON by {indent}")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: object) -> str:
    raise RaisedByTemplate(str(message)[:500])


def _strftime_now(form: str) -> str:
    _check_length(len(form) * 64)
    return datetime.datetime.now().strftime(form)


def _replace_concat(node: nodes.Node) -> None:
    """Turn each ``a ~ b`` below a node into a filter that bounds its result."""
    pending: list[nodes.Node] = [node]
    while pending:
        at = pending.pop()
        for field, value in at.iter_fields():
            if isinstance(value, nodes.Concat):
                setattr(at, field, _bounded(value))
            elif isinstance(value, list):
                value[:] = [_bounded(v) if isinstance(v, nodes.Concat) else v for v in value]
        pending.extend(at.iter_child_nodes())


def _bounded(concat: nodes.Concat) -> nodes.Filter:
    parts = nodes.List(concat.nodes, lineno=concat.lineno)
    return nodes.Filter(parts, "_joined", [], [], None, None, lineno=concat.lineno)
