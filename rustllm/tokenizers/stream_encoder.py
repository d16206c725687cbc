"""Encode a text that arrives in pieces: ids as soon as no later text can change them."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal

from rustllm._core.specials import SpecialMatcher
from rustllm._core.split import safe_cut
from rustllm.traits import Tokenizer

if TYPE_CHECKING:
    from rustllm.types import TokenArray

__all__ = ["StreamEncoder"]

_NEAR = 1 << 10
_LONG = 1 << 14


class StreamEncoder:
    """Turns pieces of a text into the ids of the whole text.

    Parameters
    ----------
    tokenizer : Tokenizer
        Anything but byte-level BPE behind a built-in splitter has the text held back to the end:
        its ids may depend on all of it.
    allowed_special, disallowed_special
        As in `Tokenizer.encode`. A special token may be cut in two by the pieces.

    Notes
    -----
    Holds what follows the last place where the text is cut whatever comes: a few words, as a rule.
    Time is linear in the text. Belongs to one thread at a time.

    Examples
    --------
    >>> from rustllm import BpeTrainer
    >>> enc = BpeTrainer(270).train(["low lower lowest slow"]).tokenizer
    >>> stream = StreamEncoder(enc)
    >>> ids = [*stream.push("low"), *stream.push("er lo"), *stream.push("west"), *stream.finish()]
    >>> ids == enc.encode("lower lowest")
    True
    """

    def __init__(
        self,
        tokenizer: Tokenizer[Any],
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> None:
        self._tokenizer = tokenizer
        self._how = {"allowed_special": allowed_special, "disallowed_special": disallowed_special}
        encoder: Any = getattr(tokenizer, "_encoder", None)
        self._cuts = encoder is not None and encoder.parts["pattern"] >= 0
        texts = {*tokenizer.special_tokens, *getattr(tokenizer, "added_tokens", ())}
        if disallowed_special != "all":
            texts |= set(disallowed_special)
        spelled = {text.encode("utf-8", "surrogatepass"): 0 for text in texts if text}
        self._matcher = SpecialMatcher(spelled) if spelled else None
        self._longest = max(map(len, spelled), default=0)
        self._held: list[str] = []
        self._n_held = 0
        self._text = ""
        self._searched = 0  # bytes of the text that hold no cut

    def push(self, text: str) -> list[int]:
        """Take the next piece; return the ids that are certain, often none.

        Raises
        ------
        DisallowedSpecialTokenError
            The text spells a disallowed special token.
        """
        certain = self._take(text)
        return self._tokenizer.encode(certain, **self._how) if certain else []  # type: ignore[arg-type]

    def push_array(self, text: str) -> TokenArray:
        """As `push`, with an array of uint32: for pieces of megabytes."""
        return self._tokenizer.encode_to_numpy(self._take(text), **self._how)  # type: ignore[arg-type]

    def _take(self, text: str) -> str:
        """Hold a piece, and let go of what is certain now."""
        self._held.append(text)
        self._n_held += len(text)
        # a long text without a border is looked through anew only once it has grown by a part
        if not self._cuts or (len(self._text) > _LONG and 8 * self._n_held < len(self._text)):
            return ""
        self._text = "".join([self._text, *self._held])
        self._held, self._n_held = [], 0
        # half of a surrogate pair may be waiting for the other half: it is no border
        data = self._text.encode("utf-8", "surrogatepass")
        cut = self._last_cut(data)
        if not cut:
            return ""
        certain = data[:cut].decode("utf-8", "surrogatepass")
        self._text = self._text[len(certain) :]
        self._searched = 0
        return certain

    @property
    def cuts(self) -> bool:
        """Whether ids can be certain before the end of a text."""
        return self._cuts

    def last_cut(self, data: bytes) -> int:
        """Where, in UTF-8 `data`, the ids of what comes before are certain; 0 for nowhere.

        For callers that hold the text themselves: `data` may begin anywhere in it, and what is
        encoded up to the cut and from it on gives the ids of the whole.
        """
        self._searched = 0
        cut = self._last_cut(data)
        self._searched = 0
        # A special token may begin before `data`.
        return cut if cut >= self._longest else 0

    @property
    def n_held(self) -> int:
        """Characters that are held back."""
        return len(self._text) + self._n_held

    def finish(self) -> list[int]:
        """Return the ids of what was held back, and start anew."""
        text = self._rest()
        return self._tokenizer.encode(text, **self._how) if text else []  # type: ignore[arg-type]

    def finish_array(self) -> TokenArray:
        """As `finish`, with an array of uint32."""
        return self._tokenizer.encode_to_numpy(self._rest(), **self._how)  # type: ignore[arg-type]

    def _rest(self) -> str:
        text = "".join([self._text, *self._held])
        self._held, self._n_held, self._text, self._searched = [], 0, "", 0
        return text

    def _last_cut(self, data: bytes) -> int:
        """The last certain border before which every special token has been seen whole; or 0."""
        most = len(data) - max(self._longest - 1, 0)
        # The last border is looked for near the end: a long piece has one for every word.
        for back in (_NEAR, _LONG, len(data)):
            start = max(self._searched, most - back)
            cuts = self._cuts_from(data, start, most)
            if cuts or start == self._searched:
                break
        if not cuts:
            # the next search starts a character or so before what was looked at
            self._searched = max(min(len(data), most) - 8, 0)
            return 0
        if self._matcher is not None:
            inside = self._matcher.find_all(data)
            while cuts and any(start < cuts[-1] < start + n for start, _, n in inside):
                cuts.pop()
        return cuts[-1] if cuts else 0

    @staticmethod
    def _cuts_from(data: bytes, at: int, most: int) -> list[int]:
        cuts: list[int] = []
        while True:
            at = safe_cut(data, at, len(data))
            if at >= len(data) or at > most:
                return cuts
            if data[at - 1] != 0x0A:  # how white space is cut may depend on what follows it
                cuts.append(at)
