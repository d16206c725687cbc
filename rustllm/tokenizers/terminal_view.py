"""The tokens of a text for a terminal: one background after another, or bars without colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rustllm.tokenizers.segments import Segment

__all__ = ["terminal_view", "visible"]

# Backgrounds of the 256-colour palette that black letters stand out on; neighbours differ in hue
# and in lightness, so that they can be told apart without telling hues apart.
_BACKGROUNDS = (153, 222, 120, 218, 187, 117)
_SPECIAL = "\x1b[1;97;48;5;124m"
_RESET = "\x1b[0m"
_BAR = "│"
_NAMED = {"\n": "↵", "\r": "␍", "\t": "→"}


def visible(segment: Segment) -> str:
    r"""What to print for a token: its text, with whatever would move the cursor written out.

    >>> visible(Segment(0, b"a\x1b\n", 0, 3, False)), visible(Segment(1, b"\xe2\x82", 0, 1, False))
    ('a\\x1b↵', '\\xe2\\x82')
    """
    text = segment.text
    if text is None:
        return "".join(chr(b) if 32 <= b < 127 else f"\\x{b:02x}" for b in segment.data)
    if text.isprintable():
        return text
    return "".join(map(_visible_character, text))


def _visible_character(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char.isprintable() or char == "\u3000":
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"


def terminal_view(segments: Iterable[Segment], *, color: bool) -> Iterator[str]:
    """Lines that show where each token begins and ends.

    Parameters
    ----------
    segments : iterable of Segment
    color : bool
        Colour the backgrounds with escape sequences; otherwise a bar stands between two tokens.

    Yields
    ------
    str
        A line without its end. A line ends where a token has a line feed, which shows as ``↵``.

    Notes
    -----
    Control characters of the text are written out: text cannot send the terminal sequences.

    Examples
    --------
    >>> tokens = [Segment(0, b"so", 0, 2, False), Segment(1, b" it\\n", 2, 6, False)]
    >>> list(terminal_view([*tokens, Segment(2, b"goes", 6, 10, False)], color=False))
    ['so│ it↵', 'goes']
    """
    line: list[str] = []
    for number, segment in enumerate(segments):
        shown = visible(segment)
        if color:
            start = _SPECIAL
            if not segment.special:
                start = f"\x1b[30;48;5;{_BACKGROUNDS[number % len(_BACKGROUNDS)]}m"
            line.append(f"{start}{shown}{_RESET}")
        else:
            line.append(shown)
        if b"\n" in segment.data:
            yield ("" if color else _BAR).join(line)
            line = []
    if line:
        yield ("" if color else _BAR).join(line)
