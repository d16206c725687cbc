"""How likely a text is: the log-probability of each of its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm._core.sample import likeliest, log_probabilities
from rustllm.errors import ArgumentError, ModelError

if TYPE_CHECKING:
    from rustllm.traits.model import LanguageModel, ModelState
    from rustllm.types import Logprobs

__all__ = ["Scores", "score"]

ROW_BYTES = 32 << 20  # of scores held at a time


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of the tokens of a text.

    Attributes
    ----------
    ids : tuple of int
        The tokens.
    logprobs : ndarray of float64, shape [n_ids]
        Of each token after those before it; NaN for the first where nothing stands before it.
    top_logprobs : tuple of tuple of (int, float)
        The likeliest tokens at each place, best first, where they were asked for.

    Examples
    --------
    >>> from rustllm.testing import BigramModel
    >>> model = BigramModel.fit("the cat sat. the cat ran. ")
    >>> scores = model.score("the")
    >>> scores.ids, [round(float(p), 2) for p in scores.logprobs[1:]]
    ((116, 104, 101), [-0.92, -0.0])
    >>> round(scores.perplexity, 2)
    1.58
    """

    ids: tuple[int, ...]
    logprobs: Logprobs
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()

    @property
    def total(self) -> float:
        """The log-probability of the text, from its first token or after it."""
        return math.fsum(p for p in self.logprobs.tolist() if not math.isnan(p))

    @property
    def perplexity(self) -> float:
        """exp of minus the mean log-probability; NaN where no token has one."""
        n = int((~np.isnan(self.logprobs)).sum())
        return math.exp(-self.total / n) if n else math.nan


def score(
    model: LanguageModel[Any, Any, Any],
    ids: Sequence[int],
    state: ModelState,
    *,
    top_logprobs: int = 0,
) -> Scores:
    """Read `ids` into an empty state and return the log-probability of each."""
    if top_logprobs < 0:
        raise ArgumentError(f"top_logprobs must not be negative, got {top_logprobs}")
    n_vocab = model.config.n_vocab
    step = max(1, ROW_BYTES // (4 * n_vocab))
    logprobs = np.full(len(ids), math.nan)
    tops: list[tuple[tuple[int, float], ...]] = [()] if top_logprobs else []
    threads = getattr(model, "threads", 1)
    # The last token's scores tell of what follows the text: nobody asks.
    for start in range(0, len(ids) - 1, step):
        part = list(ids[start : min(start + step, len(ids) - 1)])
        rows = model._read([(part, state, len(part))])[0]
        following = np.asarray(ids[start + 1 : start + 1 + len(part)], np.int32)
        found = log_probabilities(rows, following, threads)
        if np.isnan(found).any():
            raise ModelError("the model gave logits that are not finite")
        logprobs[start + 1 : start + 1 + len(part)] = found
        if top_logprobs:
            tops += [tuple(likeliest(row, top_logprobs)) for row in rows]
    return Scores(tuple(ids), logprobs, tuple(tops))
