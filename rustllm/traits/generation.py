"""One text being made: what to read next, what was drawn, what may be given out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rustllm.errors import (
    ArgumentError,
    CancelledError,
    ContextLengthError,
    ModelError,
    UnsupportedError,
)
from rustllm.traits._stop import StopFilter
from rustllm.traits.prefix_cache import common_prefix
from rustllm.traits.speculation import guesser

if TYPE_CHECKING:
    from rustllm._core.sample import Sampler
    from rustllm.traits.model import LanguageModel, ModelState
    from rustllm.traits.prefix_cache import PrefixCache
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
    context_shift: int | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        if self.max_tokens < 0:
            raise ArgumentError(f"max_tokens must not be negative, got {self.max_tokens}")
        if "" in self.stops:
            raise ArgumentError("an empty stop text would end every generation at once")
        if self.top_logprobs < 0:
            raise ArgumentError(f"top_logprobs must not be negative, got {self.top_logprobs}")
        if self.context_shift is not None and self.context_shift < 0:
            raise ArgumentError(f"context_shift must not be negative, got {self.context_shift}")


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
    n_reused : int
        Tokens of the prompt that a kept state had read already.
    n_guessed, n_right : int
        Tokens that a draft guessed, and how many of them the model drew.
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
        state: ModelState | None,
        *,
        context: int | None = None,
        sampling: Sampling,
        ending: Ending,
        processors: Sequence[LogitsProcessor] = (),
        constraint: Constraint | None = None,
        reuse_prefix: bool = False,
        prefix_cache: PrefixCache | None = None,
        draft: str | LanguageModel[Any, Any, Any] | None = None,
        draft_tokens: int = 8,
    ) -> None:
        if not ids:
            raise ArgumentError("the prompt has no tokens")
        if draft_tokens < 1:
            raise ArgumentError(f"draft_tokens must be positive, got {draft_tokens}")
        sampling.check(model.config.n_vocab)
        if prefix_cache is not None and state is not None and not reuse_prefix:
            raise ArgumentError("a prefix cache finds the state itself: give one of the two")
        if context is not None and state is not None:
            raise ArgumentError("a state has its context already: give one of the two")
        self.state = model.new_state(context) if state is None else state
        before = [] if reuse_prefix or self.state.position == 0 else _tokens_of(self.state)
        start = len(ids) if reuse_prefix else self.state.position + len(ids)
        if start > self.state.context:
            raise ContextLengthError(
                f"a prompt of {len(ids)} tokens does not fit into a context of "
                f"{self.state.context}",
                hint="shorten the prompt, or allow a larger context",
                needed=start,
                context=self.state.context,
            )
        shift = ending.context_shift
        if shift is not None and shift + 2 > self.state.context:
            raise ArgumentError(
                f"context_shift keeps {shift} tokens, which leaves no room in a context of "
                f"{self.state.context}",
                key="context_shift",
            )
        self.prompt_ids = ids
        self.ids: list[int] = []
        self.finish_reason: str | None = None
        self.stopped_by: str | int | None = None
        self.n_reused = 0
        self.n_guessed = 0
        self.n_right = 0
        self.cancel_flag = np.zeros(1, np.int32)
        self._model = model
        self._sampling = sampling
        self._ending = ending
        self._sampler: Sampler | None = None
        self._processors = processors
        self._matcher: Matcher | None = None
        if constraint is not None:
            self._matcher = constraint.start(model.tokenizer, ending.end_ids)
        self._guesser = guesser(draft, model, sampling, self.cancel_flag)
        self._guesses: list[int] = []
        self._reach = min(4, draft_tokens)  # tokens to guess; follows how well it goes
        self._max_reach = draft_tokens
        self._context = [*before, *ids]
        self._feed = ids
        self._begun = False
        self._reuse = reuse_prefix
        self._cache = prefix_cache
        self._decoder = model.tokenizer.stream_decoder()
        self._stop = StopFilter(ending.stops)
        self._held = _Held()
        self._buffer: list[Any] = []  # memory of scores, used again at every step
        self._ready: deque[Piece] = deque()
        if ending.max_tokens == 0:
            self._finish("length")

    def __next__(self) -> Piece:
        while not self._ready:
            if self.finish_reason is not None:
                raise StopIteration
            try:
                if (request := self.request()) is not None:
                    self.take(self._model._read([request], self.cancel_flag, self._buffer)[0])
            except CancelledError:
                self.close()
                raise
        return self._ready.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        import asyncio

        from rustllm.traits._async import next_in_thread

        try:
            return await next_in_thread(self, self.cancel)
        except asyncio.CancelledError:
            self.close()
            raise

    def cancel(self) -> None:
        """Stop, also in the middle of a long prompt: whoever waits for a piece gets CancelledError.

        Called from any thread.
        """
        self.cancel_flag[0] = 1

    def close(self) -> None:
        """End the text where it is; closing twice is harmless."""
        if self.finish_reason is None:
            self.finish_reason = "closed"
            self._end()
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

    def request(self, limit: int | None = None) -> tuple[list[int], ModelState, int] | None:
        """Tokens to read, the state to read them into, and how many rows of scores to return.

        At most `limit` tokens, and then no rows while there are more. None where the text has just
        ended for want of room.
        """
        if self.cancel_flag[0]:
            raise CancelledError("the generation was cancelled")
        if not self._begun:
            self._begin()
        if self.state.position + len(self._feed) > self.state.context and not self._shift():
            self._finish("context")
            return None
        if limit is not None and len(self._feed) > limit:
            return self._feed[:limit], self.state, 0
        self._guesses = self._guess() if self.ids or self._guesser is None else []
        return [*self._feed, *self._guesses], self.state, 1 + len(self._guesses)

    def take(self, rows: Logits) -> None:
        """Go on with the scores that the request asked for."""
        if len(rows) == 1:
            try:
                drawn = self.sampler(*self.before_draw(rows[0]))
            except ArithmeticError as error:
                raise not_drawn(error) from error
            self.after_draw(drawn, rows[0])
        elif len(rows):
            self._confirm(rows)

    def pieces(self) -> list[Piece]:
        """What may be given out by now."""
        ready = list(self._ready)
        self._ready.clear()
        return ready

    def took_part(self, n: int) -> None:
        """Note that the first `n` tokens of a limited request were read."""
        self._feed = self._feed[n:]

    @property
    def sampler(self) -> Sampler:
        """What draws; its memory is there only while the text is made."""
        if self._sampler is None:
            self._sampler = self._sampling.sampler(self._model.config.n_vocab, self._context)
        return self._sampler

    def before_draw(self, row: Logits) -> tuple[Logits, Logits | None]:
        """The row, and the scores to draw from where they are changed outside the sampler."""
        return row, self._changed(row)

    def after_draw(self, drawn: tuple[int, float], row: Logits) -> None:
        """Go on with a token that was drawn from the only row."""
        if self._cache is not None and not self.ids:
            self._cache.keep(self._model, self.state)
        self._accept(*drawn, row)

    def _confirm(self, rows: Logits) -> None:
        """Draw at every place as long as the guesses are what is drawn."""
        base = self.state.position - len(self._guesses)
        right = 0
        try:
            for row in rows:
                drawn = self.sampler(*self.before_draw(row))
                self._accept(*drawn, row)
                going_on = self.finish_reason is None and right < len(self._guesses)
                if not going_on or self._guesses[right] != drawn[0]:
                    break
                right += 1
        except ArithmeticError as error:
            raise not_drawn(error) from error
        finally:
            self.state.truncate(base + right)
        self.n_guessed += len(self._guesses)
        self.n_right += right
        if right == len(self._guesses):
            self._reach = min(self._max_reach, 2 * self._reach)
        else:
            self._reach = max(1, (self._reach + right + 1) // 2)

    def _guess(self) -> list[int]:
        n = min(
            self._reach,
            self._ending.max_tokens - len(self.ids) - 1,
            self.state.context - self.state.position - len(self._feed),
        )
        if self._guesser is None or n < 1:
            return []
        drawn = self._sampling.temperature > 0
        uniforms = [self.sampler.uniform(i) for i in range(n)] if drawn else []
        n_vocab = self._model.config.n_vocab
        guesses = self._guesser.guess(self._context, n, uniforms)[:n]
        return guesses if all(0 <= id < n_vocab for id in guesses) else []

    def _begin(self) -> None:
        """Find what of the prompt was read before."""
        self._begun = True
        if self._cache is not None and not self._reuse:
            found = self._cache.find(self._model, self.prompt_ids, self.state.context)
            if found is not None:
                self.state = found
                self.n_reused = found.position
        elif self._reuse:
            shared = common_prefix(_tokens_of(self.state), self.prompt_ids[:-1])
            self.state.truncate(shared)
            self.n_reused = shared
        self._feed = self.prompt_ids[self.n_reused :]

    def _shift(self) -> bool:
        """Make room: keep the first tokens and the later half of the others, read anew."""
        kept = self._ending.context_shift
        if kept is None or not self.ids:
            return False
        text = [*self.state.tokens, *self._feed]
        self._feed = text[len(text) - (self.state.context - kept) // 2 :]
        self.state.truncate(min(kept, self.state.position))
        return True

    def _changed(self, row: Logits) -> Logits | None:
        """Scores as processors and the constraint leave them; None where there are none."""
        if not self._processors and self._matcher is None:
            return None
        scores = self.sampler.adjust(row)
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
            self._finish("stop")
        elif met:
            self._finish("stop")
        elif len(self.ids) >= self._ending.max_tokens:
            self._finish("length")

    def _finish(self, reason: str) -> None:
        if self.finish_reason is None:
            self.finish_reason = reason
            self._give(self._stop.push(self._decoder.finish()) + self._stop.finish())
            self._end()

    def _end(self) -> None:
        self._sampler = None
        self._guesser = None
        if self._cache is not None and self.ids:
            self._cache.keep(self._model, self.state)

    def _give(self, text: str) -> None:
        if text:
            piece = self._held.piece(text)
            self._ready.append(piece)
            told = self._ending.callback is None or self._ending.callback(piece)
            if told is False and self.finish_reason is None:
                self.finish_reason = "callback"
                self._end()

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


def not_drawn(error: ArithmeticError) -> ModelError:
    """What a sampler's refusal means."""
    if isinstance(error, FloatingPointError):
        return ModelError("the model gave logits that are not finite")
    return ModelError(
        "no token is allowed", hint="a constraint, logit processor or bias forbids all of them"
    )


def _tokens_of(state: ModelState) -> Sequence[int]:
    """The tokens a state has read, or nothing where it does not keep them."""
    try:
        return state.tokens
    except UnsupportedError:
        return ()
