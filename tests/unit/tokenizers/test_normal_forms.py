"""Normal forms of one version of Unicode: those of ``tokenizers``, on every code point."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm.tokenizers.normal_form_tables import LATER, NEWEST
from rustllm.tokenizers.normal_forms import is_normal, is_starter, normal_form
from rustllm.tokenizers.normalizers import unicode_form
from rustllm.tokenizers.traced_text import TracedText

FORMS = ["NFC", "NFD", "NFKC", "NFKD"]
CODE_POINTS = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
# What a normal form can touch in any version, and the later characters.
LIVELY = [
    chr(c)
    for c in CODE_POINTS
    if unicodedata.combining(chr(c)) or unicodedata.decomposition(chr(c)) or 0x1100 <= c < 0x1200
] + [chr(c) for first, last in LATER for c in range(first, last + 1)]


@pytest.mark.parametrize("form", FORMS)
def test_every_code_point_alone_and_between_letters(form):
    normalizers = pytest.importorskip("tokenizers").normalizers
    theirs = getattr(normalizers, form)()
    # a line end keeps what stands before it apart from what follows
    for code in range(0, sys.maxunicode, 64):
        chars = [chr(c) for c in range(code, code + 64) if not 0xD800 <= c < 0xE000]
        text = "".join([f"{c}\na{c}\u0301\na\u0345{c}\u0334\n" for c in chars])
        assert normal_form(form, text) == theirs.normalize_str(text), hex(code)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=300)
@given(text=st.lists(st.sampled_from(LIVELY), max_size=12).map("".join))
def test_texts_of_lively_characters(form, text):
    theirs = getattr(pytest.importorskip("tokenizers").normalizers, form)()
    assert normal_form(form, text) == theirs.normalize_str(text)
    assert not is_normal(form, text) or normal_form(form, text) == text
    traced = TracedText.of(text)
    unicode_form(form)(traced)
    assert traced.text == theirs.normalize_str(text) and len(traced.spans) == len(traced.text)


def test_no_interpreter_knows_more_than_was_looked_through():
    def number(version):
        return tuple(map(int, version.split(".")))

    assert number(unicodedata.unidata_version) <= number(NEWEST)
    assert all(is_starter(chr(first)) for first, _ in LATER)


def test_lone_surrogates_stay():
    assert normal_form("NFC", "e\u0301\ud800") == "é\ud800"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("run", ["\u0301\u0323", "\u0344\u0f73\u0334", "\u0f74\u0f73"])
def test_long_runs_of_marks_take_no_quadratic_time(form, run):
    theirs = getattr(pytest.importorskip("tokenizers").normalizers, form)()
    for n in (20, 33, 100):
        assert normal_form(form, "a" + run * n + "b") == theirs.normalize_str("a" + run * n + "b")
    text = "a" + run * 100_000  # hours, if it were
    assert len(normal_form(form, text)) >= 200_000
    traced = TracedText.of(text)
    unicode_form(form)(traced)
    assert traced.text == normal_form(form, text)
