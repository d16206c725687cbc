"""Forms that a generated text must have: regular expressions, JSON, JSON Schema.

Each function returns a constraint for ``model.generate(..., constraint=...)``; ``regex=``,
``json_schema=`` and ``json=True`` of `generate` are short for them. Tokens that do not fit are
forbidden at every step, so that what comes out is right by construction, and not by retrying.

Examples
--------
>>> from rustllm import constrain
>>> from rustllm.testing import BigramModel
>>> model = BigramModel.fit("yes no maybe 12 15 1985")
>>> text = model.generate("y", constraint=constrain.regex("(19|20)[0-9]{2}"), seed=3).text()
>>> len(text), text[:2] in ("19", "20")
(4, True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rustllm.constrain import json_text
from rustllm.constrain.grammar import Alt, Grammar, text
from rustllm.constrain.matcher import GrammarConstraint, GrammarMatcher
from rustllm.constrain.regex import parse_regex
from rustllm.constrain.schema import read_schema, schema_grammar
from rustllm.errors import ArgumentError

if TYPE_CHECKING:
    from rustllm.traits.sampling import Constraint

__all__ = [
    "GrammarConstraint",
    "GrammarMatcher",
    "choices",
    "from_options",
    "json_schema",
    "json_value",
    "regex",
]


def regex(pattern: str) -> GrammarConstraint:
    r"""Return the constraint that the whole text matches a regular expression.

    Parameters
    ----------
    pattern : str
        Characters, ``.``, classes, groups, ``|``, quantifiers, and the escapes ``\d \w \s \D \W \S
        \n \t \r \f \v \xhh \uhhhh``. ``\d``, ``\w`` and ``\s`` are ASCII, their opposites leave out
        what is a digit, letter or space in any script.

    Raises
    ------
    ArgumentError
        The pattern is malformed or too large; ``position`` tells where.
    UnsupportedError
        It looks around or back, or sets flags.

    Notes
    -----
    What is generated matches as :func:`re.fullmatch` sees it.

    Examples
    --------
    >>> from rustllm import constrain
    >>> constrain.regex(r"\d{4}-\d{2}")
    <constraint: regex '\\d{4}-\\d{2}'>
    >>> constrain.regex(r"(a)\1")
    Traceback (most recent call last):
    rustllm.errors.UnsupportedError: a reference or octal number at position 3 ... not supported
    """
    return GrammarConstraint(Grammar({"text": parse_regex(pattern)}, "text"), f"regex {pattern!r}")


def choices(texts: Sequence[str]) -> GrammarConstraint:
    """Return the constraint that the text is one of these.

    Raises
    ------
    ArgumentError
        There are none.

    Examples
    --------
    >>> from rustllm import constrain
    >>> constrain.choices(["yes", "no"])
    <constraint: one of 2 texts>
    """
    if isinstance(texts, str) or not texts or "" in texts:
        raise ArgumentError("expected a sequence of texts, none of them empty")
    rule = Alt(tuple(text(t) for t in texts))
    return GrammarConstraint(Grammar({"text": rule}, "text"), f"one of {len(texts)} texts")


def json_value(*, whitespace: str = " ?", max_depth: int = 64) -> GrammarConstraint:
    """Return the constraint that the text is a JSON value.

    Parameters
    ----------
    whitespace : str
        Regular expression of what may stand between tokens. The default allows a space; models
        that indent want ``r"[ \\n]{0,40}"``.
    max_depth : int
        Arrays and objects in each other.

    Examples
    --------
    >>> from rustllm import constrain
    >>> constrain.json_value()
    <constraint: JSON>
    """
    space = parse_regex(whitespace)
    grammar = Grammar({json_text.VALUE_RULE: json_text.value_rule(space)}, json_text.VALUE_RULE)
    return GrammarConstraint(grammar, "JSON", max_depth=max_depth)


def json_schema(
    schema: Mapping[str, Any] | bool | str | bytes,
    *,
    whitespace: str = " ?",
    max_depth: int = 64,
) -> GrammarConstraint:
    """Return the constraint that the text is JSON that is valid for a schema.

    Supported: ``type``, ``enum``, ``const``, ``anyOf``, ``oneOf`` of alternatives that are surely
    apart, ``allOf`` of one, ``$ref`` within the schema, also recursive; ``properties``,
    ``required``, ``additionalProperties``; ``items``, ``prefixItems``, ``minItems``, ``maxItems``;
    ``minLength``, ``maxLength``, ``pattern``, ``format`` (date, time, date-time, uuid); bounds of
    integers. Any other keyword is refused, but those that only describe.

    Parameters
    ----------
    schema : mapping, bool, or JSON text
        Draft 2020-12, as pydantic's ``model_json_schema()`` gives it.
    whitespace, max_depth
        As in :func:`json_value`.

    Raises
    ------
    ArgumentError
        The schema is malformed, too large or nothing is valid for it; ``key`` is the place.
    UnsupportedError
        It uses what is not supported; ``key`` is the place.

    Notes
    -----
    Members come in the order of ``properties``, and only those unless ``additionalProperties`` asks
    for others. Numbers have at most 18 digits.

    Examples
    --------
    >>> from rustllm import constrain
    >>> constrain.json_schema({"type": "object", "properties": {"age": {"type": "integer"}}})
    <constraint: JSON schema>
    >>> constrain.json_schema({"type": "array", "uniqueItems": True})
    Traceback (most recent call last):
    rustllm.errors.UnsupportedError: key #: the schema at #: the keyword 'uniqueItems' is not ...
    """
    if isinstance(schema, (str, bytes)):
        schema = read_schema(schema)
    return GrammarConstraint(schema_grammar(schema, whitespace), "JSON schema", max_depth=max_depth)


def from_options(
    constraint: Constraint | None,
    pattern: str | None,
    schema: Mapping[str, Any] | bool | str | None,
    json: bool,
) -> Constraint | None:
    """Return the one constraint that was asked for by whatever name, or None.

    Raises
    ------
    ArgumentError
        There is more than one.
    """
    given = [constraint is not None, pattern is not None, schema is not None, json]
    if sum(given) > 1:
        raise ArgumentError("give only one of constraint, regex, json_schema and json")
    if pattern is not None:
        return regex(pattern)
    if schema is not None:
        return json_schema(schema)
    return json_value() if json else constraint
