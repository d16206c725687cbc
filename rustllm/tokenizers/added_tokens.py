"""Added tokens of ``tokenizer.json``: texts that become one id wherever they stand.

They are found before the text is cut; those marked `normalized` only after it is normalized.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from rustllm._core.specials import SpecialMatcher
from rustllm.errors import FileFormatError
from rustllm.tokenizers.characters import is_space, is_word
from rustllm.tokenizers.components import Fields
from rustllm.tokenizers.normalizers import Normalizer
from rustllm.tokenizers.traced_text import Span, TracedText

__all__ = ["AddedToken", "AddedTokens", "Found", "read_added_tokens"]


@dataclass(frozen=True, slots=True)
class AddedToken:
    """One added token.

    Attributes
    ----------
    id : int
    content : str
    special : bool
        Recognised only where a call allows it; skipped when decoding on request.
    single_word : bool
        Not recognised inside a word.
    lstrip, rstrip : bool
        Takes the spaces before, behind it.
    normalized : bool
        Looked for in the normalized text, where its own normal form stands.
    """

    id: int
    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether finding the text is all there is to it."""
        return not (self.single_word or self.lstrip or self.rstrip)

    def to_json(self) -> dict[str, Any]:
        """The object that ``tokenizer.json`` holds."""
        return {
            "id": self.id,
            "content": self.content,
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": self.normalized,
            "special": self.special,
        }


# A token that was found, its span and its text there; or the text between tokens.
Found = tuple[AddedToken, Span, str] | TracedText


def read_added_tokens(value: Any) -> list[AddedToken]:
    """Read the ``added_tokens`` of a ``tokenizer.json``."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise FileFormatError("added_tokens is no list", key="added_tokens")
    tokens = []
    for item in value:
        fields = Fields(item, "added token")
        special: bool = fields.take("special", bool, False)
        token = AddedToken(
            fields.take("id", int),
            fields.take("content", str),
            special,
            fields.take("single_word", bool, False),
            fields.take("lstrip", bool, False),
            fields.take("rstrip", bool, False),
            fields.take("normalized", bool, not special),
        )
        fields.done()
        if not 0 <= token.id < 1 << 31:
            raise FileFormatError(f"added token {token.content!r} has the id {token.id}", key="id")
        tokens.append(token)
    return tokens


class AddedTokens:
    """All added tokens of a tokenizer, ready to be found.

    Notes
    -----
    Immutable. Building takes time linear in the texts of all tokens; finding, linear in the text.
    """

    def __init__(self, tokens: Sequence[AddedToken], normalizer: Normalizer | None) -> None:
        self.tokens = list(tokens)
        self.by_id = {token.id: token for token in tokens}
        self.special = {token.content: token.id for token in tokens if token.special}
        self._early = _Finder({t.content: t for t in tokens if t.content and not t.normalized})
        late: dict[str, AddedToken] = {}
        for token in tokens:
            if token.content and token.normalized:
                text = TracedText.of(token.content, traced=False)
                if normalizer is not None:
                    normalizer(text)
                if text.text:
                    late[text.text] = token
        self._late = _Finder(late)
        self._normalizer = normalizer

    @property
    def is_early(self) -> bool:
        """Whether no token is looked for in normalized text."""
        return self._late.is_empty

    def cut_early(self, text: str, refused: Set[str] = frozenset()) -> Iterator[Found]:
        """Cut `text` at its added tokens, if all of them are looked for before normalizing."""
        return self._early.cut(TracedText.of(text, traced=False), refused)

    def cut(self, text: TracedText, refused: Set[str] = frozenset()) -> Iterator[Found]:
        """Cut `text` at its added tokens, normalizing what lies between them.

        Parameters
        ----------
        text : TracedText
        refused : set of str
            Contents of special tokens to be read as text.
        """
        for part in self._early.cut(text, refused):
            if not isinstance(part, TracedText):
                yield part
                continue
            if self._normalizer is not None:
                self._normalizer(part)
            yield from self._late.cut(part, refused)


class _Finder:
    def __init__(self, tokens: dict[str, AddedToken]) -> None:
        self._tokens = list(tokens.values())
        self._matcher: SpecialMatcher | None = None
        if tokens:
            self._matcher = SpecialMatcher(
                {text.encode("utf-8", "surrogatepass"): i for i, text in enumerate(tokens)}
            )

    @property
    def is_empty(self) -> bool:
        return self._matcher is None

    def cut(self, text: TracedText, refused: Set[str]) -> Iterator[Found]:
        if self._matcher is None:
            if text.text:
                yield text
            return
        last = 0
        for token, start, end in self._find(text.text):
            if token.special and token.content in refused:
                continue
            if not token.is_plain:
                flagged = _apply_flags(token, text.text, start, end, last)
                if flagged is None:
                    continue
                start, end = flagged
            if last < start:
                yield text.slice(last, start)
            spans = text.spans
            span = (start, end) if spans is None else (spans[start][0], spans[end - 1][1])
            yield token, span, text.text[start:end]
            last = end
        if last < len(text.text):
            yield text.slice(last, len(text.text)) if last else text

    def _find(self, text: str) -> Iterator[tuple[AddedToken, int, int]]:
        assert self._matcher is not None
        data = text.encode("utf-8", "surrogatepass")
        found = self._matcher.find_all(data)
        if len(data) == len(text):
            for at, i, length in found:
                yield self._tokens[i], at, at + length
            return
        start = before = 0
        for at, i, length in found:
            start += len(data[before:at].decode("utf-8", "surrogatepass"))
            n = len(data[at : at + length].decode("utf-8", "surrogatepass"))
            yield self._tokens[i], start, start + n
            start += n
            before = at + length


def _apply_flags(
    token: AddedToken, text: str, start: int, end: int, last: int
) -> tuple[int, int] | None:
    """Span of `token` with the spaces it takes; None if it stands inside a word."""
    if token.single_word and (
        (start > 0 and is_word(text[start - 1])) or (end < len(text) and is_word(text[end]))
    ):
        return None
    if token.lstrip:
        while start > last and is_space(text[start - 1]):
            start -= 1
    if token.rstrip:
        while end < len(text) and is_space(text[end]):
            end += 1
    return start, end
