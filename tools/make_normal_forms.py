"""Write ``rustllm/tokenizers/normal_form_tables.py``: what the pinned normal forms leave alone.

    python -m pip install unicodedata2 tokenizers
    python tools/make_normal_forms.py

Unicode never changes how a character that it has is normalized; it only adds characters. So one
version's normal forms are a newer version's with the characters added since then left alone. The
pinned version is the one inside ``tokenizers``, asked here about each character that a normal form
may touch. Run again when a new version of Unicode, in the newest ``unicodedata2``, brings more.
"""

from pathlib import Path
from typing import Any

import unicodedata2 as newest
from tokenizers import normalizers

TARGET = Path(__file__).resolve().parent.parent / "rustllm/tokenizers/normal_form_tables.py"
NFD: Any = normalizers.NFD()
NFKD: Any = normalizers.NFKD()
LOW, HIGH = "\u0334", "\u0345"  # combining classes 1 and 240


def is_later(char: str) -> bool:
    """Whether the newest Unicode normalizes `char`, and the pinned one does not know it."""
    if not newest.combining(char) and not newest.decomposition(char):
        return False
    texts = [char, f"a{HIGH}{char}", f"a{char}{LOW}"]
    return all(NFD.normalize_str(t) == t == NFKD.normalize_str(t) for t in texts)


def ranges(chars: set[str]) -> str:
    """Source of a tuple of first and last code points."""
    found: list[list[int]] = []
    for code in sorted(map(ord, chars)):
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "(\n" + "".join(f"    (0x{first:X}, 0x{last:X}),\n" for first, last in found) + ")\n"


def main() -> None:
    chars = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    later = {char for char in chars if is_later(char)}
    for char in list(later):
        parts = newest.decomposition(char)
        if parts and not parts.startswith("<"):  # its halves must not be put together either
            halves = {chr(int(part, 16)) for part in parts.split()}
            later |= {half for half in halves if not newest.combining(half)}
    marks = {
        char
        for char in chars
        if char not in later and newest.combining(newest.normalize("NFD", char)[0])
    }
    TARGET.write_text(
        '"""Written by tools/make_normal_forms.py; do not edit."""\n\n'
        '__all__ = ["LATER", "NEWEST", "NONSTARTERS"]\n\n'
        "# The newest version of Unicode that was looked through.\n"
        f'NEWEST = "{newest.unidata_version}"\n'
        "# fmt: off\n"
        "# Characters that a normal form touches, added after the pinned version: first, last.\n"
        f"LATER: tuple[tuple[int, int], ...] = {ranges(later)}"
        "# Characters of the pinned version that change places with their neighbours.\n"
        f"NONSTARTERS: tuple[tuple[int, int], ...] = {ranges(marks)}"
    )


if __name__ == "__main__":
    main()
