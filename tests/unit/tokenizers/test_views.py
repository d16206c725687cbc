"""Seeing tokens: where they lie in a text, in a terminal, on a page, beside another vocabulary."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustllm import BpeTrainer
from rustllm.errors import UnsupportedError
from rustllm.testing import ByteTokenizer
from rustllm.tokenizers.comparison import compare_tokenizers
from rustllm.tokenizers.html_view import html_view
from rustllm.tokenizers.segments import Segment, segments_of
from rustllm.tokenizers.terminal_view import terminal_view

CORPUS = ["the cat sat on the mat, naïve café 😀 日本語\n"] * 3
SMALL = BpeTrainer(270, special_tokens=["<end>"]).train(CORPUS).tokenizer
LARGE = BpeTrainer(300, special_tokens=["<end>"]).train(CORPUS).tokenizer
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


class Upper(ByteTokenizer):
    """Normalizes, so that its ids do not spell the text."""

    def _encode_ordinary_to_numpy(self, text):
        return super()._encode_ordinary_to_numpy(text.upper())


@given(TEXTS)
def test_segments_lie_over_the_text_as_the_offsets_say(text):
    segments = segments_of(SMALL, text)
    ids, offsets = SMALL.encode_with_offsets(text)
    assert [s.id for s in segments] == ids.tolist()
    assert [[s.start, s.end] for s in segments] == offsets.tolist()
    assert b"".join(s.data for s in segments) == text.encode()


def test_segments_of_special_tokens():
    text = "the<end>cat"
    as_text = segments_of(SMALL, text)
    assert not any(s.special for s in as_text)
    found = segments_of(SMALL, text, special=True)
    assert [(s.start, s.end) for s in found if s.special] == [(3, 8)]
    assert "".join(text[s.start : s.end] for s in found) == text


def test_segments_without_a_place_in_the_text():
    assert {(s.start, s.end) for s in segments_of(Upper(), "ab")} == {(None, None)}
    with pytest.raises(UnsupportedError):
        compare_tokenizers(Upper(), SMALL, "ab")


@given(TEXTS, st.booleans())
def test_a_terminal_gets_no_control_character_from_the_text(text, color):
    shown = "\n".join(terminal_view(segments_of(SMALL, text), color=color))
    plain = re.sub(r"\x1b\[(0|30;48;5;\d+|1;97;48;5;124)m", "", shown)
    assert all(char == "\n" or char.isprintable() or char == "\u3000" for char in plain)
    assert color or shown == plain


def test_colours_change_from_token_to_token():
    (line,) = terminal_view(segments_of(SMALL, "a b c<end>", special=True), color=True)
    backgrounds = re.findall(r"48;5;(\d+)m", line)
    assert len(backgrounds) == 5 and all(a != b for a, b in zip(backgrounds, backgrounds[1:]))
    assert backgrounds[-1] == "124"


class Page(HTMLParser):
    """What a browser would take from the page."""

    def __init__(self, text):
        super().__init__()
        self.tokens, self.names, self.inside = [], set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {tag, *given}
        if tag == "i":
            self.tokens.append(given["data-t"].split("|"))


@given(TEXTS)
def test_a_page_tells_id_bytes_and_characters_of_each_token(text):
    segments = segments_of(SMALL, text)
    page = "".join(html_view(segments, name="<toy>", n_characters=len(text)))
    found = Page(page)
    assert [(int(id), bytes.fromhex(data)) for _, id, data, _ in found.tokens] == [
        (s.id, s.data) for s in segments
    ]
    assert [place for *_, place in found.tokens] == [f"{s.start}–{s.end}" for s in segments]
    assert not {"src", "href", "link", "img", "iframe"} & found.names  # needs nothing else
    assert "http:" not in page and "https:" not in page.replace(text, "")
    assert page.count("<script") == 1 and "&lt;toy&gt;" in page


def test_markup_in_a_text_is_shown_and_not_run():
    text = "</main><script>alert(1)</script>\x00"
    page = "".join(html_view(segments_of(LARGE, text), name="toy", n_characters=len(text)))
    assert page.count("<script") == 1 and "alert(1)</script>" not in page and "\x00" not in page


@given(TEXTS)
def test_a_comparison_covers_the_text_once(text):
    found = compare_tokenizers(SMALL, LARGE, text)
    assert [s.id for s in found.left] == SMALL.encode_ordinary(text)
    assert found.cost == sum(d.cost for d in found.differences)
    last = 0
    for d in found.differences:
        assert last <= d.start < d.end <= len(text)
        last = d.end
        for side in (d.left, d.right):
            assert b"".join(s.data for s in side) == text[d.start : d.end].encode()
        assert [s.data for s in d.left] != [s.data for s in d.right]
    apart = sum(d.end - d.start for d in found.differences)
    assert found.share_cut_alike == pytest.approx(1 - apart / len(text) if text else 1.0)


def test_a_tokenizer_does_not_differ_from_itself():
    found = compare_tokenizers(LARGE, LARGE, CORPUS[0])
    assert (found.differences, found.cost, found.ratio) == ([], 0, 1.0)


def test_a_piece_of_a_character_has_no_text():
    assert Segment(0, b"\xe2\x82", 0, 1, False).text is None
    assert Segment(0, b"\xe2\x82\xac", 0, 1, False).text == "€"
