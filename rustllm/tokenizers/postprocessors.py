"""Post-processors of ``tokenizer.json``: tokens put around texts, and offsets trimmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rustllm.errors import FileFormatError
from rustllm.tokenizers.components import Fields, build_component
from rustllm.tokenizers.traced_text import Span

__all__ = ["PostProcessor", "TokenRow", "build_post_processor"]


@dataclass(slots=True)
class TokenRow:
    """Tokens of one text, or of a text and its pair, column by column."""

    ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    offsets: list[Span] = field(default_factory=list)
    words: list[int | None] = field(default_factory=list)
    type_ids: list[int] = field(default_factory=list)
    special: list[int] = field(default_factory=list)
    sequences: list[int | None] = field(default_factory=list)

    def add_special(self, id: int, token: str, type_id: int) -> None:
        """Append a token that stands for no text."""
        self.ids.append(id)
        self.tokens.append(token)
        self.offsets.append((0, 0))
        self.words.append(None)
        self.type_ids.append(type_id)
        self.special.append(1)
        self.sequences.append(None)

    def extend(self, other: TokenRow, type_id: int | None = None) -> None:
        """Append all tokens of `other`."""
        self.ids += other.ids
        self.tokens += other.tokens
        self.offsets += other.offsets
        self.words += other.words
        self.type_ids += other.type_ids if type_id is None else [type_id] * len(other.ids)
        self.special += other.special
        self.sequences += other.sequences

    def slice(self, start: int, end: int) -> TokenRow:
        """Tokens `start` to `end`."""
        return TokenRow(
            *(
                getattr(self, name)[start:end]
                for name in (
                    "ids",
                    "tokens",
                    "offsets",
                    "words",
                    "type_ids",
                    "special",
                    "sequences",
                )
            )
        )


# From the rows of a text and maybe of its pair, to one row; the second argument says whether tokens
# are to be put around them.
PostProcessor = Callable[[list[TokenRow], bool], list[TokenRow]]


def build_post_processor(value: Any) -> PostProcessor | None:
    """Build the post-processor that `value`, parsed JSON, describes; None for null."""
    return None if value is None else build_component(value, "post_processor", _BUILDERS)


def join_rows(rows: list[TokenRow]) -> TokenRow:
    """One row of all `rows`, which have their type ids already."""
    joined = TokenRow()
    for row in rows:
        joined.extend(row)
    return joined


def _template(fields: Fields) -> PostProcessor:
    specials: dict[str, tuple[list[int], list[str]]] = {}
    for name, value in fields.take("special_tokens", dict).items():
        inner = Fields(value, "special token of a template")
        inner.take("id", str)
        specials[name] = inner.take("ids", list), inner.take("tokens", list)
        inner.done()
    single = _template_parts(fields.take("single", list), specials)
    pair = _template_parts(fields.take("pair", list), specials)

    def process(rows: list[TokenRow], add_special_tokens: bool) -> list[TokenRow]:
        out = []
        for kind, name, type_id in single if len(rows) == 1 else pair:
            row = TokenRow()
            if kind == "Sequence":
                row.extend(rows[name == "B"], type_id)
            elif add_special_tokens:
                for id, token in zip(*specials[name], strict=True):
                    row.add_special(id, token, type_id)
            out.append(row)
        return out

    return process


def _template_parts(
    value: list[Any], specials: dict[str, tuple[list[int], list[str]]]
) -> list[tuple[str, str, int]]:
    parts = []
    for item in value:
        if not isinstance(item, dict) or len(item) != 1:
            raise FileFormatError(f"{item!r} is no part of a template", key="TemplateProcessing")
        ((kind, inner_value),) = item.items()
        inner = Fields(inner_value, "part of a template")
        name: str = inner.take("id", str)
        type_id: int = inner.take("type_id", int)
        inner.done()
        if (kind == "Sequence" and name in ("A", "B")) or (
            kind == "SpecialToken" and name in specials
        ):
            parts.append((kind, name, type_id))
        else:
            raise FileFormatError(f"{item!r} is no part of a template", key="TemplateProcessing")
    return parts


def _special_pair(fields: Fields, name: str) -> tuple[str, int]:
    value: Any = fields.take(name, (list, tuple))
    if len(value) != 2 or not isinstance(value[0], str) or not isinstance(value[1], int):
        raise FileFormatError(f"{fields.what}: {name!r} is {value!r}", key=name)
    return value[0], value[1]


def _bert(fields: Fields) -> PostProcessor:
    sep, sep_id = _special_pair(fields, "sep")
    cls, cls_id = _special_pair(fields, "cls")

    def process(rows: list[TokenRow], add_special_tokens: bool) -> list[TokenRow]:
        if not add_special_tokens:
            return rows
        out = TokenRow()
        out.add_special(cls_id, cls, 0)
        for i, row in enumerate(rows):
            out.extend(row, i)
            out.add_special(sep_id, sep, i)
        return [out]

    return process


def _roberta(fields: Fields) -> PostProcessor:
    sep, sep_id = _special_pair(fields, "sep")
    cls, cls_id = _special_pair(fields, "cls")
    trim: bool = fields.take("trim_offsets", bool, True)
    add_prefix_space: bool = fields.take("add_prefix_space", bool, True)

    def process(rows: list[TokenRow], add_special_tokens: bool) -> list[TokenRow]:
        for row in rows:
            if trim:
                trim_offsets(row, add_prefix_space)
            # roberta knows no types
            row.type_ids = [0] * len(row.ids)
        if not add_special_tokens:
            return rows
        out = TokenRow()
        for i, row in enumerate(rows):
            out.add_special(*((cls_id, cls) if i == 0 else (sep_id, sep)), 0)
            out.extend(row, 0)
            out.add_special(sep_id, sep, 0)
        return [out]

    return process


def _byte_level(fields: Fields) -> PostProcessor:
    trim: bool = fields.take("trim_offsets", bool, True)
    add_prefix_space: bool = fields.take("add_prefix_space", bool, True)
    fields.take("use_regex", bool, True)  # of use to the pre-tokenizer only

    def process(rows: list[TokenRow], add_special_tokens: bool) -> list[TokenRow]:
        if trim:
            for row in rows:
                trim_offsets(row, add_prefix_space)
        for i, row in enumerate(rows):
            row.type_ids = [i] * len(row.ids)
        return rows

    return process


def trim_offsets(row: TokenRow, add_prefix_space: bool) -> None:
    """Leave the spaces at either end of byte-level tokens out of their offsets."""
    for i, token in enumerate(row.tokens):
        start, end = row.offsets[i]
        bare = token.lstrip("Ġ \t\n\r")
        leading = len(token) - len(bare)
        trailing = len(token) - len(token.rstrip("Ġ \t\n\r"))
        if leading:
            if (i == 0 or start == 0) and add_prefix_space:
                leading = 0
            start = min(start + leading, end)
        if trailing and end >= trailing:
            end = max(end - trailing, start)
        row.offsets[i] = (start, end)


def _sequence(fields: Fields) -> PostProcessor:
    parts = [
        build_component(part, "post_processor", _BUILDERS)
        for part in fields.take("processors", list)
    ]

    def process(rows: list[TokenRow], add_special_tokens: bool) -> list[TokenRow]:
        for part in parts:
            rows = part(rows, add_special_tokens)
        return rows

    return process


_BUILDERS: dict[str, Callable[[Fields], PostProcessor]] = {
    "BertProcessing": _bert,
    "ByteLevel": _byte_level,
    "RobertaProcessing": _roberta,
    "Sequence": _sequence,
    "TemplateProcessing": _template,
}
