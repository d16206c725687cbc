"""The splitters against the regular expression engine of tokenizers."""

import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED, needs_shared

from rustllm._core import dispatch, split

# fmt: off
NASTY = [
    "", " ", "\n", "a", "''s 's'S'ſ 'Ll'VE're x'reb", " \n \n  x", "a\n  \n  b", "x  \r\n\r\n\t y ",
    "12345 1234567 ٣٤٥٦٧", "HelloWorld HTMLParser ABCdefGHI'S", "中文ABC，中文ABC是 éÀÉa",
    "...\n\n/ //\n/x", "\u3000\u3000a \u3000b", "a\u0301b \u0301\u0301 !\u0301!\u0301a \u0301A",
    "\x00\x01a \x7f", "“Hi”‘s’s", "don't DON'T don'tx \"'s\" ('s)", "  12  a  ! \t!\ta\t1",
    "ǅabǅA ʰA ªB", "🏃‍♂️ run 🏃", "/\n/\n//a", "a'b' 'll'l 'LL", "!\n!a !\r\n a",
]
# fmt: on
ALPHABET = "aAbsSdtTlLvVrReEſ1٣½中あアé'’\".,/!- \n\r\t"
ALPHABET += "\u3000\u00a0\u0301\u0903ǅʰª🏃\x00\u200d\ue000\u0378\u3099"


@pytest.fixture(scope="module")
def expected():
    tokenizers = pytest.importorskip("tokenizers")
    made = {}

    def ends(name, text):
        if name not in made:
            steps = [
                tokenizers.pre_tokenizers.Split(tokenizers.Regex(e), "isolated")
                for e in split.EXPRESSIONS[name]
            ]
            made[name] = tokenizers.pre_tokenizers.Sequence(steps)
        offsets = [0]
        for piece, _ in made[name].pre_tokenize_str(text):
            offsets.append(offsets[-1] + len(piece.encode()))
        return offsets[1:]

    return ends


@pytest.fixture(autouse=True, params=dispatch.available_levels())
def level(request):
    before = dispatch.current_level()
    dispatch.set_level(request.param)
    yield request.param
    dispatch.set_level(before)


def check(name, text, ends):
    data = text.encode()
    number = split.pattern_id(name)
    if dispatch.current_level() != "scalar":  # the definition is held to the engine once
        assert split.pretoken_ends(number, data) == split.pretoken_ends(number, data, True), text
        return
    want = ends(name, text)
    assert split.pretoken_ends(number, data, reference=True) == want, (name, text)
    assert split.pretoken_ends(number, data) == want, (name, text)


@pytest.mark.parametrize("name", split.NAMES)
@pytest.mark.parametrize("text", NASTY)
def test_awkward_text_is_cut_as_the_expression_cuts_it(name, text, expected):
    check(name, text, expected)


@pytest.mark.parametrize("name", split.NAMES)
def test_every_code_point_alone_and_between_letters(name, expected):
    chars = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    step = 64 if name not in ("cl100k", "o200k") else 4
    picked = chars[:0x3100] + chars[0x3100::step]
    for form in ("{0}\n", "a{0}b\n", " {0} {0}1\n", "'{0}.{0}A\n"):
        check(name, "".join(form.format(c) for c in picked), expected)


@pytest.mark.parametrize("name", split.NAMES)
def test_random_text_is_cut_as_the_expression_cuts_it(name, expected):
    @settings(max_examples=150, deadline=None)
    @given(st.text(st.sampled_from(ALPHABET), max_size=80))
    def run(text):
        check(name, text, expected)

    run()


@pytest.mark.parametrize("name", split.NAMES)
def test_fast_and_reference_agree_on_long_random_text(name):
    number = split.pattern_id(name)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.sampled_from([*ALPHABET, " the", "abc", "  ", "word", "'s"]), max_size=600))
    def run(parts):
        data = "".join(parts).encode()
        assert split.pretoken_ends(number, data) == split.pretoken_ends(number, data, True)

    run()


# First and last code points of what is written together, and of what fast paths treat alike.
SCRIPTS = [
    (0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x52F), (0x590, 0x6FF), (0x7C0, 0x85F), (0x900, 0x9FF),
    (0xE00, 0xE7F), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x3000, 0x30FF), (0x4DF0, 0x5010),
    (0x9FE0, 0xA010), (0xABF0, 0xAC10), (0xCFF0, 0xD010), (0xD790, 0xD7FF), (0xE000, 0xE020),
    (0xFF00, 0xFFEF), (0x10400, 0x1044F), (0x1F600, 0x1F64F),
]  # fmt: skip
WORD = st.sampled_from(SCRIPTS).flatmap(
    lambda ends: st.text(st.characters(min_codepoint=ends[0], max_codepoint=ends[1]), max_size=24)
)


@pytest.mark.parametrize("name", split.NAMES)
def test_fast_and_reference_agree_on_mixed_scripts_whole_and_broken(name):
    number = split.pattern_id(name)

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(WORD | st.sampled_from([" ", "  ", "\n", "'s", "\u0301", "12"]), max_size=40),
        st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2), st.binary(max_size=2))),
    )
    def run(parts, damage):
        data = bytearray("".join(parts).encode())
        assert split.pretoken_ends(number, bytes(data)) == split.pretoken_ends(
            number, bytes(data), True
        )
        for at, gone, new in damage:
            data[at : at + gone] = new
        assert split.pretoken_ends(number, bytes(data)) == split.pretoken_ends(
            number, bytes(data), True
        )

    run()


@pytest.mark.parametrize("name", split.NAMES)
def test_a_character_broken_off_at_the_end_of_a_block(name):
    number = split.pattern_id(name)
    for char in ("é", "д", "中", "각", "あ", "\u3000", "😀", "ݐ"):
        whole = char.encode()
        for kept in range(1, len(whole) + 1):
            for before in range(56, 72):
                data = b"a" * before + whole[:kept]
                for tail in (b"", b"b", " é".encode()):
                    ends = split.pretoken_ends(number, data + tail)
                    assert ends == split.pretoken_ends(number, data + tail, True), data + tail


@pytest.mark.parametrize("name", split.NAMES)
@given(data=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_bytes_that_are_not_utf8_are_cut_somewhere_and_covered(name, data):
    number = split.pattern_id(name)
    ends = split.pretoken_ends(number, data)
    assert ends == split.pretoken_ends(number, data, reference=True)
    assert ends == sorted(set(ends))
    assert (ends[-1] if ends else 0) == len(data)


@pytest.mark.parametrize("name", split.NAMES)
def test_a_safe_cut_is_a_cut(name):
    number = split.pattern_id(name)

    @settings(max_examples=200, deadline=None)
    @given(st.text(st.sampled_from(ALPHABET), min_size=1, max_size=60), st.integers(0, 60))
    def run(text, start):
        data = text.encode()
        cut = split.safe_cut(data, start)
        assert cut == len(data) or cut in split.pretoken_ends(number, data, reference=True)

    run()


@needs_shared
@pytest.mark.parametrize("corpus", ["english", "code", "multilingual", "cjk"])
@pytest.mark.parametrize("name", split.NAMES)
def test_corpora(name, corpus, expected):
    with lzma.open(SHARED / f"corpora/{corpus}.txt.xz") as file:
        text = file.read().decode()
    check(name, text[:60_000], expected)
    data = text[:600_000].encode()
    number = split.pattern_id(name)
    assert split.pretoken_ends(number, data) == split.pretoken_ends(number, data, reference=True)


@pytest.mark.parametrize("name", ["GPT2", "", "r50k"])
def test_an_unknown_name_is_a_key_error(name):
    with pytest.raises(KeyError):
        split.pattern_id(name)
