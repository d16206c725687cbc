"""What comes out matches, as Python's own engine judges, and what matches may come out."""

import re

import pytest
from constrained_text import accepts, scribble
from hypothesis import given, settings
from hypothesis import strategies as st

import rustllm
from rustllm import constrain

PATTERNS = [
    r"a*b+c?",
    r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])",
    r"[^\W\d_]{3,5}",
    r"[^\D]{2}[^\S][^\s]",
    r"\D{3}\W\S",
    r".{2,4}x",
    r"(?:ab|cd){2,3}?[^a-z]\s",
    r"é[à-ü]+|日本",
    r"\x41\u00e9{2}\U0001F600",
    r"[\]\-a]{4}",
    r"[]a]+",
    r"[^]a]{2}",
    r"[a-]+",
    r"a{,3}b{2,}",
    r"^(yes|no)$",
    r"\.\*\\",
    r"x{a}y{",
    r"(|a)b",
    r"(?P<year>\d+)",
    r"((a|b)*c){0,2}d*",
    r"(a*)*b",
    r"\t\n\r\f\v\0",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_random_texts_match(pattern):
    constraint = constrain.regex(pattern)
    ended = 0
    for seed in range(40):
        text, done = scribble(constraint, seed)
        ended += done
        if done:
            assert re.fullmatch(pattern, text), text
    assert ended >= 35


def test_the_form_is_neither_wider_nor_narrower():
    alphabet = ["a", "b", "c", "d", "-", "1"]
    words = [""]
    for _ in range(4):
        words += [w + c for w in words if len(w) < 4 for c in alphabet if len(w + c) <= 4]
    words = sorted(set(words))[:1200]
    for pattern in (r"a*b+c?", r"((a|b)*c){0,2}d*", r"[^a-c]{2,}|a", r"(a|ab)(c|bcd)?", r"\w-?\d*"):
        constraint = constrain.regex(pattern)
        for word in words:
            assert accepts(constraint, word) == bool(re.fullmatch(pattern, word)), (pattern, word)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_patterns(data):
    leaf = st.sampled_from(["a", "b", "[ab]", "[^a]", ".", "é", r"\d"])
    tree = st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])).map(
                lambda p: f"(?:{p[0]}){p[1]}"
            ),
            st.lists(inner, min_size=1, max_size=3).map("".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda p: f"({'|'.join(p)})"),
        ),
        max_leaves=8,
    )
    pattern = data.draw(tree)
    constraint = constrain.regex(pattern)
    text, done = scribble(constraint, data.draw(st.integers(0, 1000)), most=200)
    if done:
        assert re.fullmatch(pattern, text), (pattern, text)
    sample = data.draw(st.from_regex(re.compile(pattern), fullmatch=True))
    plain = not re.search(r"[^\x20-\x7eé]", sample)
    if plain and r"\d" not in pattern:
        assert accepts(constraint, sample), (pattern, sample)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (r"(a)\1", "a reference"),
        (r"a(?=b)", "a lookahead"),
        (r"a(?!b)", "a lookahead"),
        (r"(?<=a)b", "a lookbehind"),
        (r"(?i)a", "a flag"),
        (r"\ba", "a word boundary"),
        (r"a^b", r"\^ in the middle"),
        (r"(a$)b", r"\$ in the middle"),
        (r"a$b", "an end in the middle"),
        (r"\p{L}", "a property"),
        (r"a*+", "a possessive"),
        (r"(?>a)", "an atomic group"),
        (r"(?#x)a", "a comment"),
        (r"[[:alpha:]]", "a named class"),
        (r"a{20000}", "more than 10000 repetitions"),
        ("(" * 101 + ")" * 101, "a nesting"),
    ],
)
def test_what_is_not_supported_is_named(pattern, what):
    with pytest.raises(rustllm.UnsupportedError, match=what):
        constrain.regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "what", "position"),
    [
        ("a(b", "a group without an end", 1),
        ("a)", "unbalanced", 1),
        ("[a", "a class without an end", 0),
        ("*a", "nothing to repeat", 0),
        ("a**", "a second quantifier", 2),
        ("a{3,2}", "the smaller number", 1),
        ("[b-a]", "a range that ends before", 2),
        ("[a-\\d]", "a range between sets", 2),
        ("a\\", "a backslash at the end", 1),
        ("\\x4", "2 hexadecimal digits", 0),
        ("\\ud800", "no character", 0),
    ],
)
def test_malformed_patterns(pattern, what, position):
    with pytest.raises(rustllm.ArgumentError, match=what) as caught:
        constrain.regex(pattern)
    assert caught.value.position == position


def test_too_large_or_impossible_forms_are_refused():
    with pytest.raises(rustllm.ArgumentError, match="states, more than"):
        constrain.regex("((a{1000}){1000}){1000}")
    with pytest.raises(rustllm.ArgumentError, match="no text"):
        constrain.regex(r"a[^\s\S]")


def test_choices():
    constraint = constrain.choices(["yes", "no", "naïve"])
    assert {scribble(constraint, seed)[0] for seed in range(40)} == {"yes", "no", "naïve"}
    for bad in ([], "yes", [""]):
        with pytest.raises(rustllm.ArgumentError):
            constrain.choices(bad)
