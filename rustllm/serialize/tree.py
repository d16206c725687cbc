"""A tree of values as JSON plus a list of arrays, and back.

What JSON has stands for itself. The rest is an object with one key that starts with ``$``: arrays
and bytes by their number (``{"$array": 0}``), tuples, floats that are not finite, dictionaries
whose keys would be misread, and registered types.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rustllm.errors import ArgumentError, FileFormatError, UnsupportedError

__all__ = ["pack", "register_type", "unpack"]

Array = np.ndarray[Any, Any]
MAX_DEPTH = 100
_MAX_BITS = 4096  # of an integer; Python itself refuses to read ones of over 14,000 from text


class _Type(NamedTuple):
    name: str
    cls: type
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


# Replaced whole on registration, so that readers need no lock; writers do.
_types: dict[str, _Type] = {}
_registering = threading.Lock()


def register_type(
    name: str, cls: type, pack: Callable[[Any], Any], unpack: Callable[[Any], Any]
) -> None:
    """Let objects of `cls` be part of a tree.

    Parameters
    ----------
    name : str
        Stands for the class in files; never change it.
    cls : type
        This very class; classes derived from it register themselves.
    pack : callable
        From an object to a tree.
    unpack : callable
        From that tree to an object. It sees what a file holds and must check it.

    Raises
    ------
    ArgumentError
        The name stands for another class already.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from rustllm import serialize
    >>> serialize.register_type(
    ...     "doc.fraction", Fraction, lambda f: [f.numerator, f.denominator], lambda t: Fraction(*t)
    ... )
    >>> serialize.loads(serialize.dumps({"half": Fraction(1, 2)}))
    {'half': Fraction(1, 2)}
    """
    global _types
    with _registering:
        known = _types.get(name)
        if known is not None and known.cls is not cls:
            raise ArgumentError(f"{name!r} stands for {known.cls.__qualname__} already", key=name)
        _types = {**_types, name: _Type(name, cls, pack, unpack)}


def pack(value: Any, arrays: list[Array]) -> Any:
    """Return `value` as JSON can hold it, and append its arrays to `arrays`."""
    return _pack(value, arrays, "", 0)


def _pack(value: Any, arrays: list[Array], path: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ArgumentError(f"the tree is more than {MAX_DEPTH} levels deep", key=path)
    if value is None or isinstance(value, bool | str) or type(value) is str:
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int | np.integer):
        whole = int(value)
        if whole.bit_length() > _MAX_BITS:
            raise ArgumentError("the integer is too large", key=path)
        return whole
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else {"$float": repr(number)}
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.ndarray):
        return {"$array": _append(value, arrays, path)}
    if isinstance(value, bytes | bytearray | memoryview):
        data = memoryview(value).cast("B") if memoryview(value).contiguous else bytes(value)
        return {"$bytes": _append(np.frombuffer(data, np.uint8), arrays, path)}
    if isinstance(value, list):
        return [_pack(v, arrays, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
    if type(value) is tuple:
        return {
            "$tuple": [_pack(v, arrays, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
        }
    for registered in _types.values():
        if type(value) is registered.cls:
            return {
                "$type": [registered.name, _pack(registered.pack(value), arrays, path, depth + 1)]
            }
    if isinstance(value, Mapping):
        return _pack_mapping(value, arrays, path, depth)
    raise ArgumentError(
        f"{type(value).__qualname__} cannot be written",
        key=path or None,
        hint="plain values and arrays can; register_type adds a class",
    )


def _pack_mapping(value: Mapping[Any, Any], arrays: list[Array], path: str, depth: int) -> Any:
    packed = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise ArgumentError(f"keys must be text, got {key!r}", key=path or None)
        packed[str(key)] = _pack(item, arrays, f"{path}.{key}" if path else key, depth + 1)
    if len(packed) == 1 and next(iter(packed)).startswith("$"):
        return {"$dict": packed}
    return packed


def _append(array: Array, arrays: list[Array], path: str) -> int:
    kind = array.dtype
    if kind.kind not in "biufc" or kind.itemsize > 16:
        raise ArgumentError(
            f"arrays of {kind} cannot be written",
            key=path or None,
            hint="booleans, integers, floats and complex numbers can",
        )
    arrays.append(array)
    return len(arrays) - 1


def unpack(tree: Any, arrays: list[Array]) -> Any:
    """Return the value that `pack` took apart; FileFormatError when the tree breaks the rules."""
    return _unpack(tree, arrays, 0)


def _unpack(tree: Any, arrays: list[Array], depth: int) -> Any:
    if depth > MAX_DEPTH + 1:
        raise FileFormatError(f"the tree is more than {MAX_DEPTH} levels deep")
    if isinstance(tree, list):
        return [_unpack(item, arrays, depth + 1) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) != 1:
        return {key: _unpack(item, arrays, depth + 1) for key, item in tree.items()}
    ((key, item),) = tree.items()
    if not key.startswith("$"):
        return {key: _unpack(item, arrays, depth + 1)}
    if key == "$array":
        return _pick(item, arrays)
    if key == "$bytes":
        data = _pick(item, arrays)
        if data.dtype != np.uint8 or data.ndim != 1:
            raise FileFormatError("bytes that are no flat array of uint8", key=key)
        return data.tobytes()
    if key == "$tuple" and isinstance(item, list):
        return tuple(_unpack(part, arrays, depth + 1) for part in item)
    if key == "$float" and item in ("nan", "inf", "-inf"):
        return float(item)
    if key == "$dict" and isinstance(item, dict):
        return {name: _unpack(part, arrays, depth + 1) for name, part in item.items()}
    if key == "$type" and isinstance(item, list) and len(item) == 2 and isinstance(item[0], str):
        return _unpack_type(item[0], _unpack(item[1], arrays, depth + 1))
    raise FileFormatError(f"a value marked {key!r} that has the wrong form", key=key)


def _unpack_type(name: str, tree: Any) -> Any:
    registered = _types.get(name)
    if registered is None:
        raise UnsupportedError(
            f"the data holds a {name!r}, which nothing here has registered",
            key=name,
            hint="import the module that defines it first",
        )
    try:
        return registered.unpack(tree)
    except (MemoryError, UnsupportedError):
        raise
    except Exception as error:  # whatever it stumbles over in data that somebody made up
        raise FileFormatError(f"no valid {name!r}: {error}", key=name) from error


def _pick(index: Any, arrays: list[Array]) -> Array:
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(arrays):
        raise FileFormatError(f"there is no array {index!r}", key="$array")
    return arrays[index]


def _register_own() -> None:
    from rustllm.types import TokenBatch

    register_type(
        "rustllm.TokenBatch",
        TokenBatch,
        lambda batch: [np.asarray(batch.ids), np.asarray(batch.offsets)],
        lambda tree: TokenBatch(*tree),
    )


_register_own()
