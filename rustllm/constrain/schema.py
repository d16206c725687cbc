"""JSON Schema (draft 2020-12) as forms of a text.

What a schema says is kept to the letter, and what is not supported is refused by name: no keyword
is ever ignored but those that only describe. A generated text may be narrower than the schema:
members stand in the order of ``properties``, and there are no others unless
``additionalProperties`` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from rustllm.constrain import json_text as spell
from rustllm.constrain.grammar import Alt, Call, Grammar, Node, Repeat, Seq, text
from rustllm.constrain.integers import integers
from rustllm.constrain.overlap import may_overlap
from rustllm.constrain.regex import parse_regex
from rustllm.errors import ArgumentError, UnsupportedError

__all__ = ["schema_grammar"]

MAX_DEPTH = 200
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_DESCRIBE = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
_DESCRIBE |= {"$schema", "$id", "$comment", "$defs", "definitions", "$anchor"}
_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
}
_COMBINE = ("$ref", "enum", "const", "anyOf", "oneOf", "allOf")
_KNOWN = {"type", *_COMBINE, *_DESCRIBE}.union(*_OF_TYPE.values())
_DAY = "(0[1-9]|1[0-9]|2[0-8])"
_DATE = f"[0-9]{{4}}-(0[1-9]|1[0-2])-{_DAY}"
_TIME = (
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
}


def schema_grammar(schema: Any, whitespace: str = " ?") -> Grammar:
    """Return the grammar of the texts that are valid for `schema`.

    Parameters
    ----------
    schema : mapping or bool
        As :mod:`json` reads it.
    whitespace : str
        Regular expression of what may stand between tokens.
    """
    return _Compiler(schema, parse_regex(whitespace)).grammar()


class _Compiler:
    def __init__(self, schema: Any, space: Node) -> None:
        self._schema = schema
        self._space = space
        self._rules: dict[str, Node] = {}
        self._pending: list[str] = []
        self._depth = 0

    def grammar(self) -> Grammar:
        root = self._reference("#", "#")
        while self._pending:
            pointer = self._pending.pop()
            self._rules[pointer] = self._node(self._find(pointer, pointer), pointer)
        return Grammar(self._rules, root.rule)

    # ---- errors ----------------------------------------------------------------------------------

    def _wrong(self, what: str, path: str) -> NoReturn:
        raise ArgumentError(f"the schema at {path}: {what}", key=path)

    def _not_supported(self, what: str, path: str) -> NoReturn:
        raise UnsupportedError(f"the schema at {path}: {what} is not supported", key=path)

    # ---- references ------------------------------------------------------------------------------

    def _reference(self, pointer: str, path: str) -> Call:
        if pointer not in self._rules:
            self._find(pointer, path)
            self._rules[pointer] = Alt(())  # until its turn comes
            self._pending.append(pointer)
        return Call(pointer)

    def _find(self, pointer: str, path: str) -> Any:
        from urllib.parse import unquote

        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            self._not_supported(f"$ref {pointer!r}, which points out of the schema,", path)
        value = self._schema
        for part in pointer.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(value, Mapping) and name in value:
                value = value[name]
            elif isinstance(value, Sequence) and name.isdecimal() and int(name) < len(value):
                value = value[int(name)]
            else:
                self._wrong(f"$ref {pointer!r} leads nowhere", path)
        return value

    # ---- one schema ------------------------------------------------------------------------------

    def _node(self, schema: Any, path: str) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._not_supported(f"a nesting of more than {MAX_DEPTH} schemas", path)
        try:
            return self._of(schema, path)
        finally:
            self._depth -= 1

    def _of(self, schema: Any, path: str) -> Node:
        if schema is True:
            return self._any()
        if schema is False:
            self._wrong("nothing is valid for false", path)
        if not isinstance(schema, Mapping):
            self._wrong(f"a schema is an object or a boolean, not {schema!r}", path)
        for keyword in schema:
            if keyword not in _KNOWN:
                self._not_supported(f"the keyword {keyword!r}", path)
        rules = [keyword for keyword in schema if keyword not in _DESCRIBE]
        combining = [keyword for keyword in _COMBINE if keyword in schema]
        if combining:
            return self._combined(schema, combining, rules, path)
        types = self._types(schema, path)
        if types is None:
            return self._any()
        parts = [getattr(self, f"_{kind}")(schema, path) for kind in types]
        return parts[0] if len(parts) == 1 else Alt(tuple(parts))

    def _combined(
        self, schema: Mapping[str, Any], combining: list[str], rules: list[str], path: str
    ) -> Node:
        keyword = combining[0]
        beside = [other for other in rules if other != keyword]
        value = schema[keyword]
        if keyword in ("enum", "const"):
            # Values can be checked against the rest here and now, as far as it is only their type.
            if any(other != "type" for other in beside):
                self._not_supported(f"{keyword} together with {beside[0]!r}", path)
            values = [value] if keyword == "const" else value
            if not isinstance(values, list) or not values:
                self._wrong("enum must be a list of values", path)
            types = self._types(schema, path) if "type" in schema else None
            values = [v for v in values if types is None or any(_is(v, t) for t in types)]
            if not values:
                self._wrong(f"no value of {keyword} has the type", path)
            try:
                return Alt(tuple(spell.literal(v) for v in values))
            except (TypeError, ValueError) as error:
                self._wrong(f"{keyword} holds what JSON does not: {error}", path)
        if beside:
            self._not_supported(f"{keyword} together with {beside[0]!r}", path)
        if keyword == "$ref":
            return self._reference(value, path)
        if not isinstance(value, list) or not value:
            self._wrong(f"{keyword} must be a list of schemas", path)
        if keyword == "allOf" and len(value) > 1:
            self._not_supported("allOf of more than one schema", path)
        if keyword == "oneOf":
            clash = may_overlap(value, self._resolved)
            if clash is not None:
                self._not_supported(
                    f"oneOf whose alternatives {clash[0]} and {clash[1]} may both be valid", path
                )
        parts = [self._node(part, f"{path}/{keyword}/{i}") for i, part in enumerate(value)]
        return Alt(tuple(parts))

    def _resolved(self, schema: Any) -> Any:
        for _ in range(MAX_DEPTH):
            if not (isinstance(schema, Mapping) and "$ref" in schema):
                break
            schema = self._find(schema["$ref"], "oneOf")
        return schema

    def _types(self, schema: Mapping[str, Any], path: str) -> list[str] | None:
        given = schema.get("type")
        if given is None:
            implied = [kind for kind, words in _OF_TYPE.items() if words & schema.keys()]
            return implied or None
        types = [given] if isinstance(given, str) else given
        if not isinstance(types, list) or not types:
            self._wrong(f"type must be a name or a list of names, not {given!r}", path)
        for kind in types:
            if kind not in _TYPES:
                self._wrong(f"there is no type {kind!r}", path)
        return list(types)

    def _any(self) -> Node:
        if spell.VALUE_RULE not in self._rules:
            self._rules[spell.VALUE_RULE] = spell.value_rule(self._space)
        return Call(spell.VALUE_RULE)

    def _count(self, schema: Mapping[str, Any], name: str, path: str) -> int | None:
        value = schema.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self._wrong(f"{name} must be a whole number of at least 0, not {value!r}", path)
        return value

    def _bounds(self, schema: Mapping[str, Any], what: str, path: str) -> tuple[int, int | None]:
        least = self._count(schema, f"min{what}", path) or 0
        most = self._count(schema, f"max{what}", path)
        if most is not None and most < least:
            self._wrong(f"max{what} is less than min{what}", path)
        return least, most

    # ---- by type ---------------------------------------------------------------------------------

    def _null(self, schema: Mapping[str, Any], path: str) -> Node:
        return text("null")

    def _boolean(self, schema: Mapping[str, Any], path: str) -> Node:
        return Alt((text("true"), text("false")))

    def _number(self, schema: Mapping[str, Any], path: str) -> Node:
        for name in sorted(_OF_TYPE["number"] & schema.keys()):
            self._not_supported(f"{name} of a number that is no integer", path)
        return spell.NUMBER

    def _integer(self, schema: Mapping[str, Any], path: str) -> Node:
        low, high = -(10**18) + 1, 10**18 - 1
        for name in sorted(_OF_TYPE["number"] & schema.keys()):
            bound = schema[name]
            if isinstance(bound, bool) or not isinstance(bound, (int, float)) or bound != bound:
                self._wrong(f"{name} must be a number, not {bound!r}", path)
            if abs(bound) == float("inf"):
                self._wrong(f"{name} must be finite", path)
            floor = int(bound // 1)
            if name == "minimum":
                low = max(low, floor if floor == bound else floor + 1)
            elif name == "exclusiveMinimum":
                low = max(low, floor + 1)
            elif name == "maximum":
                high = min(high, floor)
            else:
                high = min(high, floor - 1 if floor == bound else floor)
        if low > high:
            self._wrong("no integer of at most 18 digits lies between the bounds", path)
        return integers(low, high)

    def _string(self, schema: Mapping[str, Any], path: str) -> Node:
        least, most = self._bounds(schema, "Length", path)
        lengths = [name for name in ("minLength", "maxLength") if name in schema]
        shapes = [name for name in ("pattern", "format") if name in schema]
        if len(shapes) > 1 or (shapes and lengths):
            together = (shapes + lengths)[:2]
            self._not_supported(f"{together[0]} together with {together[1]}", path)
        if "pattern" in schema:
            if not isinstance(schema["pattern"], str):
                self._wrong("pattern must be a string", path)
            return spell.quoted(parse_regex(schema["pattern"], encode=spell.spelled, search=True))
        if "format" in schema:
            if schema["format"] not in _FORMATS:
                self._not_supported(f"the format {schema['format']!r}", path)
            return spell.quoted(parse_regex(_FORMATS[schema["format"]]))
        return spell.quoted(Repeat(spell.CHARACTER, least, most))

    def _array(self, schema: Mapping[str, Any], path: str) -> Node:
        least, most = self._bounds(schema, "Items", path)
        first = schema.get("prefixItems", [])
        if not isinstance(first, list):
            self._wrong("prefixItems must be a list of schemas", path)
        items = schema.get("items", True)
        if isinstance(items, list):
            self._not_supported("items as a list (use prefixItems)", path)
        if most is not None:
            first = first[:most]
        nodes = [self._node(part, f"{path}/prefixItems/{i}") for i, part in enumerate(first)]
        rest = None
        if items is not False and not (most is not None and len(nodes) >= most):
            rest = self._node(items, f"{path}/items")
        if rest is None and least > len(nodes):
            self._wrong("there cannot be as many items as minItems asks for", path)
        return spell.array(nodes, rest, least, most, self._space)

    def _object(self, schema: Mapping[str, Any], path: str) -> Node:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        others = schema.get("additionalProperties")
        if not isinstance(properties, Mapping):
            self._wrong("properties must be an object", path)
        if not isinstance(required, list) or not all(isinstance(r, str) for r in required):
            self._wrong("required must be a list of names", path)
        members = []
        names = [*properties, *(r for r in dict.fromkeys(required) if r not in properties)]
        for name in names:
            if name in properties:
                part, where = properties[name], f"{path}/properties/{name}"
                if part is False and name not in required:
                    continue
            else:
                part, where = (True if others is None else others), f"{path}/required"
            value = self._node(part, where)
            members.append((spell.quoted(_name(name)), value, name in required))
        more = None
        if others is None and not names:
            others = True  # an object of which nothing is said
        if others is not None and others is not False:
            key = spell.string_but_not(names) if names else spell.ANY_STRING
            more = (key, self._node(others, f"{path}/additionalProperties"))
        return spell.obj(members, more, self._space)


def _name(name: str) -> Node:
    return Seq(tuple(spell.spelled(((ord(c), ord(c)),)) for c in name))


def _is(value: Any, kind: str) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    python: dict[str, type] = {"object": dict, "array": list, "string": str, "null": type(None)}
    return isinstance(value, python[kind])


def read_schema(source: str | bytes) -> Any:
    """Read a schema from JSON text; ArgumentError where it is none."""
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"the schema is not JSON: {error}") from None
