"""One text being made: what to read next, what was drawn, what may be given out."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rustllm.errors import ArgumentError, CancelledError, ContextLengthError, ModelError
from rustllm.traits._stop import StopFilter

if TYPE_CHECKING:
    from rustllm._core.sample import Sampler
    from rustllm.traits.model import LanguageModel, ModelState
    from rustllm.traits.sampling import Constraint, LogitsProcessor, Matcher, Sampling
    from rustllm.types import Logits

__all__ = ["Generation", "Piece"]


class Piece(str):
    """A piece of generated text that knows which tokens it came from.

    Attributes
    ----------
    ids : tuple of int
        Tokens that completed the piece.
    logprobs : tuple of float
        Their log-probabilities under the model, before bias, penalties, temperature and cuts.
    top_logprobs : tuple of tuple of (int, float)
        For each of them the likeliest tokens at its place, best first, where they were asked for.

    Examples
    --------
    >>> from rustllm.traits import Piece
    >>> piece = Piece(" a cat", (264, 8415), (-0.1, -2.0))
    >>> piece.upper(), piece.ids
    (' A CAT', (264, 8415))
    """

    __slots__ = ("ids", "logprobs", "top_logprobs")

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...]

    def __new__(
        cls,
        text: str,
        ids: Iterable[int] = (),
        logprobs: Iterable[float] = (),
        top_logprobs: Iterable[Iterable[tuple[int, float]]] = (),
    ) -> Self:
        self = super().__new__(cls, text)
        self.ids = tuple(ids)
        self.logprobs = tuple(logprobs)
        self.top_logprobs = tuple(tuple(top) for top in top_logprobs)
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.ids, self.logprobs, self.top_logprobs


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """What ends a text, and what is told of it on the way."""

    max_tokens: int
    stops: tuple[str, ...]
    end_ids: frozenset[int]
    top_logprobs: int = 0
    callback: Callable[[Piece], object] | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        if self.max_tokens < 0:
            raise ArgumentError(f"max_tokens must not be negative, got {self.max_tokens}")
        if "" in self.stops:
            raise ArgumentError("an empty stop text would end every generation at once")
        if self.top_logprobs < 0:
            raise ArgumentError(f"top_logprobs must not be negative, got {self.top_logprobs}")


class Generation(Iterator[Piece]):
    """A text being made, piece by piece: iterate over it, with ``for`` or ``async for``.

    Made by :meth:`LanguageModel.generate` and :meth:`LanguageModel.chat`. Tokens are read and drawn
    as pieces are asked for.

    Attributes
    ----------
    prompt_ids : list of int
        The prompt.
    ids : list of int
        Tokens of the text so far, given out or held back.
    state : ModelState
        What the model has read: the prompt and all tokens but the last.
    finish_reason : str or None
        None while it goes on; then ``"stop"`` (an end token, a stop text, or a constraint that is
        met), ``"length"`` (`max_tokens`), ``"context"`` (no room), ``"callback"`` or ``"closed"``.
    stopped_by : str, int or None
        The stop text or the end token.

    Notes
    -----
    One thread at a time takes pieces; :meth:`cancel` may be called from any.
    """

    def __init__(
        self,
        model: LanguageModel[Any, Any, Any],
        ids: list[int],
        state: ModelState,
        *,
        sampling: Sampling,
        ending: Ending,
        processors: Sequence[LogitsProcessor] = (),
        constraint: Constraint | None = None,
    ) -> None:
        if not ids:
            raise ArgumentError("the prompt has no tokens")
        if state.position + len(ids) > state.context:
            raise ContextLengthError(
                f"a prompt of {len(ids)} tokens does not fit into a context of {state.context}",
                hint="shorten the prompt, or allow a larger context",
                needed=state.position + len(ids),
                context=state.context,
            )
        self.prompt_ids = ids
        self.ids: list[int] = []
        self.state = state
        self.finish_reason: str | None = None
        self.stopped_by: str | int | None = None
        self.cancel_flag = np.zeros(1, np.int32)
        self._model = model
        self._ending = ending
        self._sampler: Sampler = sampling.sampler(model.config.n_vocab, ids)
        self._processors = processors
        self._matcher: Matcher | None = None
        if constraint is not None:
            self._matcher = constraint.start(model.tokenizer, ending.end_ids)
        self._context = list(ids)
        self._feed = ids
        self._decoder = model.tokenizer.stream_decoder()
        self._stop = StopFilter(ending.stops)
        self._held = _Held()
        self._ready: deque[Piece] = deque()
        if ending.max_tokens == 0:
            self._finish("length")

    def __next__(self) -> Piece:
        while not self._ready:
            if self.finish_reason is not None:
                raise StopIteration
            if (request := self.request()) is not None:
                self.take(self._model._read([request], self.cancel_flag)[0])
        return self._ready.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        import asyncio

        step = asyncio.ensure_future(asyncio.to_thread(next, self, None))
        try:
            piece = await asyncio.shield(step)
        except asyncio.CancelledError:
            # The thread stops within an operation of the model; nothing of it is left behind.
            self.cancel()
            with contextlib.suppress(Exception):
                await step
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    def cancel(self) -> None:
        """Stop, also in the middle of a long prompt: whoever waits for a piece gets CancelledError.

        Called from any thread.
        """
        self.cancel_flag[0] = 1

    def close(self) -> None:
        """End the text where it is; closing twice is harmless."""
        if self.finish_reason is None:
            self.finish_reason = "closed"
        self._ready.clear()

    def text(self) -> str:
        """Make what is left and return it as one text.

        Examples
        --------
        >>> from rustllm.testing import BigramModel
        >>> BigramModel.fit("abab").generate("a", max_tokens=3, temperature=0).text()
        'bab'
        """
        return "".join(self)

    # ---- what drives it: `__next__`, or a batch ------------------------------------------------

    def request(self) -> tuple[list[int], ModelState, int] | None:
        """Tokens to read, the state to read them into, and how many rows of scores to return.

        None where the text has just ended for want of room.
        """
        if self.cancel_flag[0]:
            self.finish_reason = self.finish_reason or "closed"
            raise CancelledError("the generation was cancelled")
        if self.state.position + len(self._feed) > self.state.context:
            self._finish("context")
            return None
        return self._feed, self.state, 1

    def take(self, rows: Logits) -> None:
        """Go on with the scores that the request asked for."""
        row = rows[-1]
        try:
            id, logprob = self._sampler(row, self._changed(row))
        except ArithmeticError as error:
            raise _not_drawn(error) from error
        self._accept(id, logprob, row)

    def _changed(self, row: Logits) -> Logits | None:
        """Scores as processors and the constraint leave them; None where there are none."""
        if not self._processors and self._matcher is None:
            return None
        scores = self._sampler.adjust(row)
        for process in self._processors:
            process(self._context, scores)
        if self._matcher is not None:
            self._matcher.mask(scores)
        return scores

    def _accept(self, id: int, logprob: float, row: Logits) -> None:
        if id in self._ending.end_ids:
            self.stopped_by = id
            self._finish("stop")
            return
        self._feed = [id]
        self.ids.append(id)
        self._context.append(id)
        top = None
        if self._ending.top_logprobs:
            from rustllm._core.sample import likeliest

            top = likeliest(row, self._ending.top_logprobs)
        self._held.add(id, logprob, top)
        met = self._matcher is not None and self._matcher.advance(id)
        self._give(self._stop.push(self._decoder.push(id)))
        if self._stop.stopped:
            self.stopped_by = self._stop.found
            self.finish_reason = "stop"
        elif met:
            self._finish("stop")
        elif len(self.ids) >= self._ending.max_tokens:
            self._finish("length")

    def _finish(self, reason: str) -> None:
        if self.finish_reason is None:
            self.finish_reason = reason
            self._give(self._stop.push(self._decoder.finish()) + self._stop.finish())

    def _give(self, text: str) -> None:
        if text:
            piece = self._held.piece(text)
            self._ready.append(piece)
            if self._ending.callback is not None and self._ending.callback(piece) is False:
                self.finish_reason = self.finish_reason or "callback"

    def __repr__(self) -> str:
        now = self.finish_reason or "going on"
        return f"<Generation of {len(self.ids)} tokens after {len(self.prompt_ids)}: {now}>"


class _Held:
    """Tokens whose text was not given out yet."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._tops: list[list[tuple[int, float]]] = []

    def add(self, id: int, logprob: float, top: list[tuple[int, float]] | None) -> None:
        self._ids.append(id)
        self._logprobs.append(logprob)
        if top is not None:
            self._tops.append(top)

    def piece(self, text: str) -> Piece:
        piece = Piece(text, self._ids, self._logprobs, self._tops)
        self.__init__()  # type: ignore[misc]
        return piece


def _not_drawn(error: ArithmeticError) -> ModelError:
    if isinstance(error, FloatingPointError):
        return ModelError("the model gave logits that are not finite")
    return ModelError(
        "no token is allowed", hint="a constraint, logit processor or bias forbids all of them"
    )
