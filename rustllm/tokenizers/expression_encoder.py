"""An encoder behind a regular expression that is not built in, through the ``regex`` package.

The expression cuts the text, the compiled encoder does the rest. Slower than a built-in splitter by
what the expression takes; the ids are those that the expression means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from rustllm._core.encoder import Encoder
from rustllm._core.specials import SpecialMatcher
from rustllm._core.text import utf8
from rustllm._optional import need
from rustllm.errors import ArgumentError
from rustllm.traits.tokenizer import with_ends

__all__ = ["ExpressionEncoder", "compile_expression"]


def compile_expression(expression: str) -> Any:
    """Compile an expression that no built-in splitter stands for.

    Raises
    ------
    MissingDependencyError
        The ``regex`` package is not installed.
    ArgumentError
        It is no regular expression.
    """
    regex = need("regex", "regex", f"the expression {expression!r} is not built in and needs")
    try:
        return regex.compile(expression)
    except regex.error as error:
        raise ArgumentError(f"{expression!r} is no regular expression: {error}") from error


class ExpressionEncoder:
    """Has the methods of the compiled encoder that a tokenizer calls.

    Parameters
    ----------
    encoder : Encoder
        One that does not cut text itself.
    expression : str
        What it finds is encoded, match by match; what lies between matches is dropped, as in
        tiktoken.

    Notes
    -----
    Immutable. The expression is searched with the GIL held; an expression that backtracks without
    end takes its time here as it does anywhere.
    """

    def __init__(self, encoder: Encoder, expression: str) -> None:
        self._encoder = encoder
        self._find = compile_expression(expression).finditer
        self.expression = expression
        self.parts = {**encoder.parts, "expression": expression}
        self.n_vocab = encoder.n_vocab

    def __reduce__(self) -> tuple[Any, ...]:
        return ExpressionEncoder, (self._encoder, self.expression)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._encoder, name)  # what has nothing to do with cutting

    def _stretches(
        self, data: bytes, accept: SpecialMatcher | None
    ) -> Iterator[tuple[bytes, int | None]]:
        """Stretches of text, each with the special token behind it."""
        last = 0
        for at, id, length in accept.find_all(data) if accept is not None else ():
            yield data[last:at], id
            last = at + length
        yield data[last:], None

    def last_pretoken(self, data: bytes) -> bytes:
        """The last match of the expression in `data`; empty for none."""
        pieces = [match[0] for match in self._find(data.decode()) if match[0]]
        return pieces[-1].encode() if pieces else b""

    def encode(
        self, text: str, accept: SpecialMatcher | None = None, refuse: SpecialMatcher | None = None
    ) -> Any:
        """Ids of `text`, or the id and place of the first token of `refuse` that it spells."""
        data = utf8(text)
        if refuse is not None and (found := refuse.find_all(data)):
            at, id, _ = found[0]
            return id, len(data[:at].decode())
        parts = []
        for stretch, special in self._stretches(data, accept):
            if stretch:
                pieces = [match[0] for match in self._find(stretch.decode()) if match[0]]
                parts.append(self._encoder.encode_batch(pieces, None, None, 1)[0])
            if special is not None:
                parts.append(np.array([special], np.uint32))
        return np.concatenate(parts) if parts else np.empty(0, np.uint32)

    def encode_list(
        self, text: str, accept: SpecialMatcher | None = None, refuse: SpecialMatcher | None = None
    ) -> Any:
        """As `encode`, a list."""
        ids = self.encode(text, accept, refuse)
        return ids if type(ids) is tuple else ids.tolist()

    def count(
        self, text: str, accept: SpecialMatcher | None = None, refuse: SpecialMatcher | None = None
    ) -> Any:
        """Number of ids."""
        ids = self.encode(text, accept, refuse)
        return ids if type(ids) is tuple else len(ids)

    def _each(
        self,
        texts: Iterable[str],
        accept: SpecialMatcher | None,
        refuse: SpecialMatcher | None,
    ) -> Any:
        rows = []
        for number, text in enumerate(texts):
            ids = self.encode(text, accept, refuse)
            if type(ids) is tuple:
                return (*ids, number)
            rows.append(ids)
        return rows

    def encode_batch(
        self,
        texts: Iterable[str],
        accept: SpecialMatcher | None = None,
        refuse: SpecialMatcher | None = None,
        threads: int = 0,
    ) -> Any:
        """Flat ids and where each text's begin, or what is refused and in which text."""
        rows = self._each(texts, accept, refuse)
        if type(rows) is tuple:
            return rows
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return np.concatenate(rows) if rows else np.empty(0, np.uint32), offsets

    def encode_spans(
        self,
        data: Any,
        spans: Any,
        accept: SpecialMatcher | None = None,
        threads: int = 1,
        end: int | None = None,
        dtype: Any = None,
    ) -> Any:
        """Flat ids and lengths of texts that lie in a buffer."""
        view = memoryview(data)
        texts = [str(view[start:stop], "utf-8") for start, stop in spans.tolist()]
        ids, offsets = self.encode_batch(texts, accept)
        return with_ends(ids, offsets, end, dtype)

    def encode_batch_lists(
        self,
        texts: Iterable[str],
        accept: SpecialMatcher | None = None,
        refuse: SpecialMatcher | None = None,
        threads: int = 0,
    ) -> Any:
        """Ids of each text."""
        rows = self._each(texts, accept, refuse)
        return rows if type(rows) is tuple else [row.tolist() for row in rows]

    def count_batch(
        self,
        texts: Iterable[str],
        accept: SpecialMatcher | None = None,
        refuse: SpecialMatcher | None = None,
        threads: int = 0,
    ) -> Any:
        """Number of ids of each text."""
        rows = self._each(texts, accept, refuse)
        if type(rows) is tuple:
            return rows
        return np.array([len(row) for row in rows], np.int64)
