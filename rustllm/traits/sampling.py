"""How the next token is chosen: settings, and what a caller may do to the scores before."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rustllm.errors import ArgumentError, OutOfRangeError

if TYPE_CHECKING:
    from rustllm._core.sample import Sampler
    from rustllm.traits.tokenizer import Tokenizer
    from rustllm.types import Logits

__all__ = ["Constraint", "LogitsProcessor", "Matcher", "Sampling"]


class LogitsProcessor(Protocol):
    """Changes scores before a token is drawn from them.

    Called once for each token, as a function: it may keep nothing between calls.
    """

    def __call__(self, ids: Sequence[int], scores: Logits, /) -> object:
        """Change `scores`, float32 ``[n_vocab]``, in place; minus infinity forbids a token.

        Parameters
        ----------
        ids : sequence of int
            Prompt and text so far; not to be kept or changed.
        scores : ndarray
            The model's, after bias and penalties, before temperature and cuts.
        """


class Matcher(Protocol):
    """Follows one text that a `Constraint` shapes."""

    def mask(self, scores: Logits, /) -> object:
        """Set the scores of tokens that may not come next to minus infinity, in place.

        Tokens that end the text stay allowed only where the text is complete.
        """

    def advance(self, id: int, /) -> bool:
        """Take the token that came next; True when the text is complete and nothing may follow."""


class Constraint(Protocol):
    """A form that a generated text must have: a grammar, a schema, a list of answers.

    Immutable, so any number of generations may share one.
    """

    def start(self, tokenizer: Tokenizer[Any], end_ids: frozenset[int], /) -> Matcher:
        """Return a matcher at the beginning of a text.

        Parameters
        ----------
        tokenizer : Tokenizer
            Of the model.
        end_ids : frozenset of int
            Tokens that end this generation.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Scores are changed by `logit_bias`, then by the penalties, then divided by `temperature`; cuts
    follow in the order top-k, min-p, typical, top-p. The defaults change and cut nothing.

    Parameters
    ----------
    temperature : float
        0 takes the likeliest token each time; among equals the smaller id.
    top_k : int
        Keep the k likeliest; 0 keeps all.
    top_p : float
        Keep the fewest likeliest that together reach this probability (Holtzman et al. 2020).
    min_p : float
        Keep those at least this many times as likely as the likeliest.
    typical_p : float
        Keep those whose information lies nearest to the expected one and that together reach this
        probability (Meister et al. 2022).
    repeat_penalty : float
        Divide positive scores of tokens in the window by this, multiply negative ones (Keskar et
        al. 2019).
    frequency_penalty, presence_penalty : float
        Take this off the score of a token for each time it stands in the window, and once if it
        does.
    repeat_last_n : int
        Length of the window over prompt and text; -1 takes all, 0 none.
    logit_bias : mapping of int to float
        Added to the scores of tokens; minus infinity forbids one.
    seed : int, optional
        Makes the draws repeatable: same seed, same text, whatever the number of threads and
        whatever else runs.

    Raises
    ------
    ArgumentError
        A setting is out of its range.

    Examples
    --------
    >>> from rustllm.traits import Sampling
    >>> Sampling(top_p=0.9, seed=1).top_p
    0.9
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        if not self.temperature >= 0 or math.isinf(self.temperature):
            raise _wrong("temperature", "must be finite and not negative", self.temperature)
        if self.top_k < 0:
            raise _wrong("top_k", "must not be negative", self.top_k)
        for name in ("top_p", "typical_p"):
            if not 0 < getattr(self, name) <= 1:
                raise _wrong(name, "must lie in (0, 1]", getattr(self, name))
        if not 0 <= self.min_p <= 1:
            raise _wrong("min_p", "must lie in [0, 1]", self.min_p)
        if not self.repeat_penalty > 0 or math.isinf(self.repeat_penalty):
            raise _wrong("repeat_penalty", "must be finite and positive", self.repeat_penalty)
        for name in ("frequency_penalty", "presence_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise _wrong(name, "must be finite", getattr(self, name))
        if self.repeat_last_n < -1:
            raise _wrong("repeat_last_n", "must be -1 or more", self.repeat_last_n)
        if self.seed is not None and operator.index(self.seed) < 0:
            raise _wrong("seed", "must not be negative", self.seed)
        for value in self.logit_bias.values():
            if math.isnan(value) or value == math.inf:
                raise _wrong("logit_bias", "must be finite or minus infinity", value)

    def check(self, n_vocab: int) -> None:
        """Raise OutOfRangeError where a token is named that a vocabulary does not have."""
        for id in self.logit_bias:
            if not 0 <= operator.index(id) < n_vocab:
                raise OutOfRangeError(
                    f"logit_bias names token {id}, and the vocabulary has {n_vocab}", token=id
                )

    def sampler(self, n_vocab: int, before: Iterable[int] = ()) -> Sampler:
        """Return what draws by these settings; `before` are tokens that the text begins with."""
        from rustllm._core.sample import Sampler

        self.check(n_vocab)
        sampler = Sampler(
            n_vocab,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            typical_p=self.typical_p,
            repeat_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            repeat_last_n=self.repeat_last_n,
            logit_bias=self.logit_bias,
            seed=self.seed,
        )
        sampler.extend(before)
        return sampler


def _wrong(name: str, rule: str, value: object) -> ArgumentError:
    return ArgumentError(f"{name} {rule}, got {value}", key=name)
