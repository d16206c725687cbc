"""Whether a value may be valid for two schemas at once, which ``oneOf`` forbids."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

__all__ = ["may_overlap"]


def may_overlap(schemas: Sequence[Any], resolve: Callable[[Any], Any]) -> tuple[int, int] | None:
    """Return two alternatives that are not surely apart, or None.

    Apart are schemas of different types, with different constants, or of objects that both require
    a member whose constants differ.
    """
    known = [resolve(schema) for schema in schemas]
    for i, j in combinations(range(len(known)), 2):
        if not _apart(known[i], known[j], resolve, 0):
            return i, j
    return None


def _apart(a: Any, b: Any, resolve: Callable[[Any], Any], depth: int) -> bool:
    if depth > 8 or not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return False
    mine, yours = _types(a), _types(b)
    if mine is not None and yours is not None and not mine & yours:
        return True
    ours, theirs = _constants(a), _constants(b)
    if ours is not None and theirs is not None and not ours & theirs:
        return True
    if mine == {"object"} == yours:
        for name in {*a.get("required", ())} & {*b.get("required", ())}:
            one = resolve(a.get("properties", {}).get(name))
            other = resolve(b.get("properties", {}).get(name))
            if _apart(one, other, resolve, depth + 1):
                return True
    return False


def _constants(schema: Mapping[str, Any]) -> set[str] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list):
        return None
    return {_canonical(value) for value in values}


def _canonical(value: Any) -> str:
    # 1 and 1.0 are the same number in JSON Schema.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _types(schema: Mapping[str, Any]) -> set[str] | None:
    given = schema.get("type")
    if given is None:
        constants = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if not isinstance(constants, list):
            return None
        return {_type_of(value) for value in constants}
    types = {given} if isinstance(given, str) else set(given)
    return types if "integer" not in types else (types - {"integer"}) | {"number"}


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    names: dict[type, str] = {dict: "object", list: "array", str: "string"}
    return names.get(type(value), "null")
