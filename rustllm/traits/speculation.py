"""Guessing the next tokens, so that a model reads several at once and confirms them.

A guess never changes a text. The model's own draw decides at every place, with the random number
that belongs to the place, and a guess only saves a pass where it was right: the same seed gives the
same text with any draft or none. (Leviathan et al. 2023 accept and reject to keep the distribution;
drawing with shared random numbers keeps the text itself, as in Daliri et al. 2025. Looking the text
up in what came before: Saxena 2023.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from rustllm.errors import ArgumentError

if TYPE_CHECKING:
    from rustllm.traits.model import LanguageModel
    from rustllm.traits.sampling import Sampling

__all__ = ["DraftModel", "Guesser", "PromptLookup", "guesser"]


class Guesser(Protocol):
    """Follows one text and guesses how it goes on."""

    def guess(self, ids: Sequence[int], n: int, uniforms: Sequence[float], /) -> list[int]:
        """Return up to `n` tokens that may follow `ids`.

        Parameters
        ----------
        ids : sequence of int
            Prompt and text so far; it only grows from call to call.
        n : int
        uniforms : sequence of float
            The random numbers that will decide those places; empty where the likeliest token is
            taken.
        """


class PromptLookup:
    """Guesses that what followed the last few tokens earlier follows them again.

    Costs next to nothing; right where a text quotes, edits or repeats what came before.

    Parameters
    ----------
    longest, shortest : int
        Tokens that must have come in the same order; the longest match counts.

    Examples
    --------
    >>> from rustllm.traits.speculation import PromptLookup
    >>> PromptLookup().guess([1, 2, 3, 4, 9, 1, 2, 3], 2, [])
    [4, 9]
    """

    def __init__(self, *, longest: int = 4, shortest: int = 2) -> None:
        if not 1 <= shortest <= longest:
            raise ArgumentError(f"a match of {shortest} to {longest} tokens")
        self._lengths = range(longest, shortest - 1, -1)
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> place after its latest occurrence
        self._done = 0

    def guess(self, ids: Sequence[int], n: int, uniforms: Sequence[float]) -> list[int]:
        """Return what followed the latest earlier occurrence of the end of `ids`."""
        # The n-grams that end before the last token; the one at the end is what is looked for.
        for end in range(max(self._done, 1), len(ids)):
            for length in self._lengths:
                if length <= end:
                    self._after[tuple(ids[end - length : end])] = end
        self._done = len(ids)
        for length in self._lengths:
            place = self._after.get(tuple(ids[-length:])) if length < len(ids) else None
            if place is not None:
                found = list(ids[place : place + n])
                while len(found) < n:  # it repeats itself with this period
                    found.append(found[len(found) - (len(ids) - place)])
                return found
        return []


class DraftModel:
    """Guesses with a smaller model of the same vocabulary.

    Parameters
    ----------
    model : LanguageModel
    sampling : Sampling
        Of the text; the draft draws by the same settings with the same random numbers, without bias
        and penalties.
    cancel : ndarray of int32, shape [1], optional
        Becomes non-zero to stop a guess.
    """

    def __init__(
        self, model: LanguageModel[Any, Any, Any], sampling: Sampling, cancel: Any = None
    ) -> None:
        plain = replace(
            sampling,
            repeat_penalty=1.0,
            frequency_penalty=0.0,
            presence_penalty=0.0,
            logit_bias={},
            seed=0,
        )
        self._model = model
        self._sampler = plain.sampler(model.config.n_vocab)
        self._state = model.new_state()
        self._cancel = cancel
        self._known: list[int] = []  # what the state has read

    def guess(self, ids: Sequence[int], n: int, uniforms: Sequence[float]) -> list[int]:
        """Return what the draft draws."""
        n = min(n, self._state.context - len(ids))
        if n < 1:
            return []
        self._forget_wrong(ids)
        feed = list(ids[len(self._known) :])
        found: list[int] = []
        for place in range(n):
            row = self._model._read([(feed, self._state, 1)], self._cancel)[0][0]
            self._known += feed
            id = self._sampler.guess(row, uniforms[place] if uniforms else 0.0)
            found.append(id)
            feed = [id]
        return found

    def _forget_wrong(self, ids: Sequence[int]) -> None:
        # Only guesses can be wrong, and they stand at the end: look from there. One token at least
        # is read anew, for its scores.
        n = min(len(self._known), len(ids) - 1)
        start = max(0, n - 256)
        while start and self._known[start - 1] != ids[start - 1]:
            start = max(0, start - 256)
        while start < n and self._known[start] == ids[start]:
            start += 1
        if start < len(self._known):
            del self._known[start:]
            self._state.truncate(start)


def guesser(
    draft: str | LanguageModel[Any, Any, Any] | None,
    model: LanguageModel[Any, Any, Any],
    sampling: Sampling,
    cancel: Any = None,
) -> Guesser | None:
    """Return what guesses for one text.

    Parameters
    ----------
    draft : "lookup", a model, or None

    Raises
    ------
    ArgumentError
        It is something else, or the draft's vocabulary is another.
    """
    from rustllm.traits.model import LanguageModel

    if draft is None:
        return None
    if draft == "lookup":
        return PromptLookup()
    if isinstance(draft, LanguageModel):
        if draft.config.n_vocab != model.config.n_vocab:
            raise ArgumentError(
                f"the draft has a vocabulary of {draft.config.n_vocab} tokens, and the model one "
                f"of {model.config.n_vocab}",
                key="draft",
                hint="take a smaller model of the same family",
            )
        return DraftModel(draft, sampling, cancel)
    raise ArgumentError(f'draft must be "lookup" or a model, not {draft!r}', key="draft")
