"""What comes out is valid, as the package jsonschema judges."""

import json
import re

import pytest
from constrained_text import accepts, scribble

import rustllm
from rustllm import constrain

jsonschema = pytest.importorskip("jsonschema")

LIST = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "boolean"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
}
TAGGED = [
    {"type": "object", "properties": {"k": {"const": k}, "n": {"type": "null"}}, "required": ["k"]}
    for k in ("x", "y")
]
SCHEMAS = [
    True,
    {},
    {"type": "integer"},
    {"type": "integer", "minimum": -5, "exclusiveMaximum": 120},
    {"type": "integer", "exclusiveMinimum": 99.5, "maximum": 10_203},
    {"type": "number", "description": "any", "title": "x", "default": 3},
    {"type": ["null", "boolean"]},
    {"enum": ["a", 1, None, {"x": [1, 2]}, 1.5]},
    {"enum": ["a", 1, None], "type": "string"},
    {"const": 'é\n"\\'},
    {"type": "string", "maxLength": 3},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "pattern": '^[a-c"\\\\\n]{2,3}$'},
    {"type": "string", "pattern": r"^\d+|^x$"},
    {"type": "string", "pattern": "^[\\x00-\\x1f]{3}$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "array"},
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2},
    {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "null"}, {"const": 1}], "items": False},
    {"type": "array", "prefixItems": [{"type": "null"}, {"const": 1}], "minItems": 2},
    {"prefixItems": [{"type": "null"}, {"const": 1}], "items": {"const": 7}, "maxItems": 5},
    {"type": "array", "maxItems": 0},
    {"type": "array", "items": {"const": 1}, "maxItems": 1},
    {"type": "object"},
    {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}, "c": {"const": 1}},
        "required": ["b"],
    },
    {"properties": {"a": {"type": "boolean"}, "ab": False}, "additionalProperties": {"const": 0}},
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"type": "object", "required": ["q", "é\n"], "additionalProperties": {"type": "null"}},
    {"type": "object", "properties": {}, "additionalProperties": False},
    LIST,
    {"oneOf": [*TAGGED, {"type": "boolean"}]},
    {"allOf": [{"type": "null"}]},
    {"minLength": 1},
    {"definitions": {"a/b": {"type": "null"}}, "$ref": "#/definitions/a~1b"},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: json.dumps(s)[:60])
def test_random_texts_are_valid(schema):
    constraint = constrain.json_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    ended = 0
    for seed in range(25):
        text, done = scribble(constraint, seed, most=600)
        ended += done
        if done:
            validator.validate(json.loads(text))
    assert ended >= 12


def test_a_schema_may_come_as_text():
    text, done = scribble(constrain.json_schema('{"const": [1, "x"]}'))
    assert done and json.loads(text) == [1, "x"]
    with pytest.raises(rustllm.ArgumentError, match="not JSON"):
        constrain.json_schema("{")


def test_any_json_may_be_written():
    constraint = constrain.json_value()
    values = [None, True, 0, -12.5e-7, "", 'a"\\\n\u2028é😀', [], {}, [[], {}, [1, "x"]]]
    values += [{"a": {"b": [1, 2, {"c": None}]}, "": False}]
    for value in values:
        for options in ({}, {"separators": (",", ":")}, {"ensure_ascii": False}):
            written = json.dumps(value, **options)
            if "\\ud8" not in written:
                assert accepts(constraint, written), written
    for bad in ("[1,]", "{,}", "01", "+1", "'a'", '"\t"', "tru", '{"a"}', "[1 2]", '"\\x"', "1."):
        assert not accepts(constraint, bad), bad


def test_depth_is_kept_without_a_dead_end():
    for depth in (1, 2, 5):
        constraint = constrain.json_value(max_depth=depth)
        for seed in range(60):
            text, done = scribble(constraint, seed, most=3000, spread=1.0)
            bare = re.sub(r'"(\\.|[^"\\])*"', "", text)
            level = deepest = 0
            for char in bare:
                level += (char in "[{") - (char in "]}")
                deepest = max(deepest, level)
            assert deepest <= depth + 1
            if done:
                json.loads(text)
    assert accepts(constrain.json_value(max_depth=300), "[" * 300 + "]" * 300)


def test_whitespace_is_what_was_asked_for():
    indented = json.dumps({"a": [1, {"b": 2}]}, indent=2)
    assert accepts(constrain.json_value(whitespace=r"[ \n]{0,20}"), indented)
    assert not accepts(constrain.json_value(), indented)
    assert not accepts(constrain.json_value(whitespace=""), "[1, 2]")


@pytest.mark.parametrize(
    ("schema", "what", "place"),
    [
        ({"type": "array", "uniqueItems": True}, "'uniqueItems'", "#"),
        ({"properties": {"a": {"not": {}}}}, "'not'", "#/properties/a"),
        ({"type": "number", "minimum": 0}, "minimum of a number", "#"),
        ({"type": "number", "multipleOf": 2}, "'multipleOf'", "#"),
        ({"type": "string", "format": "email"}, "'email'", "#"),
        (
            {"type": "string", "pattern": "a", "maxLength": 2},
            "pattern together with maxLength",
            "#",
        ),
        ({"anyOf": [{}], "type": "null"}, "anyOf together with 'type'", "#"),
        ({"allOf": [{}, {}]}, "allOf of more than one", "#"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "may both be valid", "#"),
        ({"$ref": "other.json"}, "points out of the schema", "#"),
        ({"items": [{}]}, "use prefixItems", "#"),
        ({"enum": ["a"], "minLength": 1}, "enum together with", "#"),
        ({"type": "object", "patternProperties": {}}, "'patternProperties'", "#"),
    ],
)
def test_what_is_not_supported_is_named(schema, what, place):
    with pytest.raises(rustllm.UnsupportedError, match=what) as caught:
        constrain.json_schema(schema)
    assert caught.value.key == place


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        (False, "nothing is valid"),
        (3, "a schema is an object"),
        ({"type": "text"}, "no type 'text'"),
        ({"type": []}, "type must be"),
        ({"enum": []}, "enum must be"),
        ({"const": float("nan")}, "JSON does not"),
        ({"enum": [1], "type": "string"}, "no value of enum"),
        ({"$ref": "#/$defs/x"}, "leads nowhere"),
        ({"$ref": "#"}, "stands for itself"),
        ({"anyOf": []}, "anyOf must be a list"),
        ({"minLength": -1}, "minLength must be"),
        ({"minItems": 3, "maxItems": 2}, "less than minItems"),
        ({"prefixItems": [{}], "items": False, "minItems": 2}, "as many items"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "between the bounds"),
        ({"required": "a"}, "required must be"),
        ({"required": ["a"], "additionalProperties": False}, "nothing is valid"),
        ({"pattern": "("}, "a group without an end"),
        (
            {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]},
            "no text within 64 levels",
        ),
    ],
)
def test_malformed_and_impossible_schemas(schema, what):
    with pytest.raises(rustllm.ArgumentError, match=re.escape(what)):
        constrain.json_schema(schema)


def test_integers_between_bounds_are_exactly_those():
    for low, high in ((0, 0), (-12, 7), (95, 1003), (-1000, -7), (1, 9), (10, 99), (0, 250)):
        constraint = constrain.json_schema({"type": "integer", "minimum": low, "maximum": high})
        for n in range(low - 30, high + 30, 1 if high - low < 300 else 7):
            assert accepts(constraint, str(n)) == (low <= n <= high), n


@pytest.mark.parametrize(
    ("schema", "first", "last"),
    [
        ({"minimum": 2.5, "maximum": 9.5}, 3, 9),
        ({"minimum": -2.5, "maximum": -0.5}, -2, -1),
        ({"minimum": 3.0, "exclusiveMaximum": 9.0}, 3, 8),
        ({"exclusiveMinimum": 3.0, "exclusiveMaximum": 8.5}, 4, 8),
        ({"exclusiveMinimum": -3.5, "exclusiveMaximum": 3}, -3, 2),
        ({"minimum": 2, "exclusiveMinimum": 4, "maximum": 9, "exclusiveMaximum": 7}, 5, 6),
    ],
)
def test_fractional_and_exclusive_bounds_of_integers(schema, first, last):
    constraint = constrain.json_schema({"type": "integer", **schema})
    accepted = [n for n in range(-20, 21) if accepts(constraint, str(n))]
    assert accepted == list(range(first, last + 1))
