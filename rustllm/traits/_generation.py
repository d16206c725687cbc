"""Drawing a token and watching for stop texts: what `LanguageModel.generate` does by default."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rustllm.errors import ArgumentError, ModelError

if TYPE_CHECKING:
    from rustllm.types import Logits


def check_sampling(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    """Raise ArgumentError for a setting that is out of its range."""
    if not temperature >= 0 or math.isinf(temperature):
        raise ArgumentError(f"temperature must be finite and not negative, got {temperature}")
    if top_k < 0:
        raise ArgumentError(f"top_k must not be negative, got {top_k}")
    if not 0 < top_p <= 1:
        raise ArgumentError(f"top_p must lie in (0, 1], got {top_p}")
    if not 0 <= min_p <= 1:
        raise ArgumentError(f"min_p must lie in [0, 1], got {min_p}")


def sampler(
    temperature: float, top_k: int, top_p: float, min_p: float, seed: int | None
) -> Callable[[Logits], tuple[int, float]]:
    """Return a function from logits to the id drawn and its log-probability."""
    random = np.random.default_rng(seed)

    def draw(logits: Logits) -> tuple[int, float]:
        scores = np.asarray(logits, dtype=np.float64)
        top = scores.max()
        if not np.isfinite(top):
            raise ModelError("the model gave logits that are not finite")
        logprobs = scores - top
        logprobs -= np.log(np.exp(logprobs).sum())
        if temperature == 0:
            best = int(logprobs.argmax())
            return best, float(logprobs[best])
        # Stable sort: among equals the smaller id comes first, on every machine.
        order = np.argsort(-logprobs, kind="stable")
        weights = np.exp((logprobs[order] - logprobs[order[0]]) / temperature)
        keep = len(order) if top_k == 0 else min(top_k, len(order))
        weights = weights[:keep]
        if min_p > 0:
            weights = weights[: max(1, int((weights >= min_p * weights[0]).sum()))]
        if top_p < 1:
            share = np.cumsum(weights) / weights.sum()
            weights = weights[: int(np.searchsorted(share, top_p)) + 1]
        share = np.cumsum(weights)
        picked = int(np.searchsorted(share, random.random() * share[-1], side="right"))
        id = int(order[min(picked, len(weights) - 1)])
        return id, float(logprobs[id])

    return draw


class StopFilter:
    """Passes text on until a stop text appears, holding back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Take more text, return what can no longer become part of a stop text."""
        if not self._stops or self.stopped:
            return "" if self.stopped else text
        held = self._held + text
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return held[: min(found)]
        keep = max(_overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """Return what was held back in vain."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop` and is shorter than it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
