"""Reading the fields of a ``tokenizer.json`` component, strictly.

A field that is missing, of the wrong type, or that we know nothing of is an error that names it: a
setting that is passed over in silence gives other ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rustllm.errors import FileFormatError, UnsupportedError

__all__ = ["Fields", "build_component"]

T = TypeVar("T")
_REQUIRED: Any = object()


class Fields:
    """The fields of one component, taken one by one; `done` complains about what is left."""

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, Mapping):
            raise FileFormatError(f"{what} is no object", key=what)
        self._left = dict(value)
        self.what = what

    def take(self, name: str, kind: type[T] | tuple[type, ...], default: Any = _REQUIRED) -> T:
        """The field `name`, which must be of the type `kind`."""
        value = self._left.pop(name, default)
        if value is _REQUIRED:
            raise FileFormatError(f"{self.what} lacks the field {name!r}", key=name)
        if value is default:
            return value  # type: ignore[no-any-return]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise FileFormatError(f"{self.what}: {name!r} is {value!r}", key=name)
        return value  # type: ignore[return-value]

    def char(self, name: str, default: Any = _REQUIRED) -> str:
        """The field `name`, one character."""
        value: str = self.take(name, str, default)
        if len(value) != 1:
            raise FileFormatError(f"{self.what}: {name!r} is not one character", key=name)
        return value

    def done(self) -> None:
        """Refuse fields that nobody took."""
        if self._left:
            name = next(iter(self._left))
            raise UnsupportedError(
                f"{self.what} has the field {name!r}, which is not implemented", key=name
            )


def build_component(value: Any, what: str, builders: Mapping[str, Callable[[Fields], T]]) -> T:
    """Build the component that the ``type`` of `value` names.

    Raises
    ------
    UnsupportedError
        No builder has that name, or the component has a field that is not implemented.
    FileFormatError
        A field is missing or of the wrong type.
    """
    fields = Fields(value, what)
    kind: str = fields.take("type", str)
    builder = builders.get(kind)
    if builder is None:
        raise UnsupportedError(
            f"the {what} {kind!r} is not implemented",
            key=kind,
            hint=f"implemented are {', '.join(sorted(builders))}",
        )
    fields.what = f"{what} {kind}"
    component = builder(fields)
    fields.done()
    return component
