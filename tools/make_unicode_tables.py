"""Write ``rustllm/_core/simd/unicode_tables.h`` from one pinned version of the Unicode data.

    python -m pip install unicodedata2==16.0.0
    python tools/make_unicode_tables.py

The version is the one that the regular expressions of ``tiktoken`` and ``tokenizers`` use; a test
compares every code point. Nothing asks ``unicodedata`` at run time: the interpreter's version would
change ids silently.
"""

import sys
from pathlib import Path

import unicodedata2

VERSION = "16.0.0"
BLOCK = 128
LAST = 0x110000
TARGET = Path(__file__).resolve().parent.parent / "rustllm/_core/simd/unicode_tables.h"

# fmt: off
CATEGORIES = (
    "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co",
)
# fmt: on
# Classes of the splitters; the numbers are repeated in rustllm/_core/unicode.pxd.
OTHER, SPACE, NUMBER, UPPER, LOWER, LETTER, MARK, PUNCTUATION, SYMBOL = range(9)
WHITE_SPACE = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)}
WHITE_SPACE |= {0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def class_of(code_point: int, category: str) -> int:
    if code_point in WHITE_SPACE:
        return SPACE
    if category in ("Lu", "Lt"):
        return UPPER
    if category == "Ll":
        return LOWER
    first = {"L": LETTER, "N": NUMBER, "M": MARK, "P": PUNCTUATION, "S": SYMBOL}
    return first.get(category[0], OTHER)


def two_stage(name: str, values: list[int]) -> str:
    """C source of an index of blocks and the distinct blocks, each once."""
    seen: dict[tuple[int, ...], int] = {}
    index = []
    for start in range(0, LAST, BLOCK):
        block = tuple(values[start : start + BLOCK])
        index.append(seen.setdefault(block, len(seen)))
    lines = [f"static const uint16_t rl_{name}_index[{len(index)}] = {{"]
    lines += _rows(index)
    lines += ["};", f"static const uint8_t rl_{name}_block[{len(seen)}][{BLOCK}] = {{"]
    for block in seen:
        lines += ["{", *_rows(list(block)), "},"]
    return "\n".join([*lines, "};"])


def _rows(values: list[int]) -> list[str]:
    return [",".join(map(str, values[i : i + 32])) + "," for i in range(0, len(values), 32)]


def main() -> None:
    if unicodedata2.unidata_version != VERSION:
        sys.exit(f"need Unicode {VERSION}, have {unicodedata2.unidata_version}")
    categories = [unicodedata2.category(chr(c)) for c in range(LAST)]
    classes = [class_of(c, category) for c, category in enumerate(categories)]
    numbers = [CATEGORIES.index(category) for category in categories]
    TARGET.write_text(
        f"/* Written by tools/make_unicode_tables.py from Unicode {VERSION}; do not edit. */\n"
        "#ifndef RUSTLLM_UNICODE_TABLES_H\n#define RUSTLLM_UNICODE_TABLES_H\n"
        "#include <stdint.h>\n"
        f'#define RL_UNICODE_VERSION "{VERSION}"\n'
        f"{two_stage('class', classes)}\n{two_stage('category', numbers)}\n#endif\n"
    )


if __name__ == "__main__":
    main()
