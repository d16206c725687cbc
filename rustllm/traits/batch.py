"""Many texts made together: new ones join and finished ones leave at every step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rustllm.errors import ArgumentError, RustLLMError
from rustllm.traits.generation import Generation, not_drawn

if TYPE_CHECKING:
    from rustllm.traits.generation import Piece
    from rustllm.traits.model import LanguageModel

__all__ = ["Batch"]

PROMPT_TOKENS = 256  # of prompts at a step, so that a long one does not hold up the others


class Batch(Iterator[tuple[int, "Piece"]]):
    """Texts that one model makes together: iterate over ``(index, piece)``.

    Made by :meth:`LanguageModel.generate_batch`. Every step reads one token of each running text,
    and some of the prompts of those that join, in one pass of the model, so that its weights are
    fetched once for all. Each text is the one that :meth:`LanguageModel.generate` gives alone.

    Parameters
    ----------
    model : LanguageModel
    prompts : iterable
        As :meth:`add` takes them; an iterator is read as places become free.
    max_sequences : int
        Texts that run at a time.
    **options
        Of every text that does not have its own; as in :meth:`LanguageModel.generate`.

    Attributes
    ----------
    generations : dict of int to Generation
        The texts that have begun, by index: their ids, and how they ended.

    Notes
    -----
    One thread iterates; :meth:`add`, :meth:`cancel` and :meth:`close` may be called from any, also
    between two pieces. An error in one text (a callback that raises, scores that are all forbidden)
    is raised once, with ``index`` among its fields, and ends that text; iterating goes on with the
    others.
    """

    def __init__(
        self,
        model: LanguageModel[Any, Any, Any],
        prompts: Iterable[Any] = (),
        *,
        max_sequences: int = 8,
        **options: Any,
    ) -> None:
        if max_sequences < 1:
            raise ArgumentError(f"max_sequences must be positive, got {max_sequences}")
        if isinstance(prompts, (str, bytes, Mapping)):
            raise ArgumentError("prompts must be a sequence of prompts, not a single one")
        if "state" in options:
            raise ArgumentError("every text of a batch has a state of its own", key="state")
        self.generations: dict[int, Generation] = {}
        self._model = model
        self._source = iter(prompts)
        self._max_sequences = max_sequences
        self._options = options
        self._waiting: deque[tuple[int, Any, dict[str, Any]]] = deque()
        self._running: dict[int, Generation] = {}
        self._ready: deque[tuple[int, Piece]] = deque()
        self._errors: deque[Exception] = deque()
        self._count = 0
        self._buffer: list[Any] = []  # memory of scores, used again at every step
        self._cancel = np.zeros(1, np.int32)
        if isinstance(prompts, Sized):
            # Their places are their indices, whatever is added later.
            for prompt in self._source:
                self.add(prompt)

    def add(self, prompt: Any, **options: Any) -> int:
        """Put a text in the queue; it joins when a place is free.

        Parameters
        ----------
        prompt : str, iterable of int, or mapping
            A prompt; or a mapping with ``prompt`` or ``messages`` (for :meth:`LanguageModel.chat`)
            and the text's own options.
        **options
            The text's own, over those of the batch.

        Returns
        -------
        int
            Its index: the first is 0.
        """
        if isinstance(prompt, Mapping):
            given = dict(prompt)
            key = "messages" if "messages" in given else "prompt"
            if key not in given:
                raise ArgumentError("a mapping needs prompt or messages")
            prompt, options = (key, given.pop(key)), {**given, **options}
        else:
            prompt = ("prompt", prompt)
        index = self._count
        self._count += 1
        self._waiting.append((index, prompt, options))
        return index

    def cancel(self, index: int) -> None:
        """End one text where it is, or take it out of the queue."""
        generation = self.generations.get(index)
        if generation is not None:
            generation.cancel()
        else:
            self._waiting = deque(entry for entry in self._waiting if entry[0] != index)

    def close(self) -> None:
        """End all texts where they are; closing twice is harmless.

        A thread that waits for a piece meanwhile gets CancelledError.
        """
        self._cancel[0] = 1
        self._source = iter(())
        self._waiting.clear()

    @property
    def n_running(self) -> int:
        """Texts that are being made."""
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        """Texts in the queue, without prompts that were not asked for yet."""
        return len(self._waiting)

    @property
    def n_ready(self) -> int:
        """Pieces that are made and not taken yet: at 0, texts that have ended are complete."""
        return len(self._ready)

    def texts(self) -> list[str]:
        """Make what is left and return the texts in the order of their indices."""
        found: dict[int, list[str]] = {}
        for index, piece in self:
            found.setdefault(index, []).append(piece)
        return ["".join(found.get(index, ())) for index in range(self._count)]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, Piece]:
        while not self._ready:
            if self._errors:
                raise self._errors.popleft()
            if self._cancel[0]:
                self._leave()
                raise StopIteration
            self._join()
            if not self._running:
                if self._errors:
                    continue
                raise StopIteration
            self._step()
        return self._ready.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, Piece]:
        from rustllm.traits._async import next_in_thread

        return await next_in_thread(self, self.close)

    def _join(self) -> None:
        """Begin texts while there are places."""
        while len(self._running) < self._max_sequences:
            if not self._waiting:
                try:
                    self.add(next(self._source))
                except StopIteration:
                    return
            index, (kind, prompt), own = self._waiting.popleft()
            make = self._model.chat if kind == "messages" else self._model.generate
            options = {**self._options, **own}
            try:
                # Who waits in the queue holds no memory: a text gets its state when it joins.
                generation = make(prompt, **options)
            except Exception as error:
                self._fail(index, error)
                continue
            self.generations[index] = self._running[index] = generation
            self._collect(index, generation)

    def _step(self) -> None:
        """Read one token of each text and parts of prompts, and draw."""
        requests = []
        left = PROMPT_TOKENS
        for index, generation in list(self._running.items()):
            request = None
            try:
                if generation.cancel_flag[0]:
                    generation.close()
                else:
                    request = generation.request(left)
            except Exception as error:
                self._fail(index, error)
                continue
            if request is not None:
                requests.append((index, generation, request))
                left = max(1, left - len(request[0]))
            else:
                self._collect(index, generation)
        if not requests:
            return
        rows = self._model._read(
            [request for _, _, request in requests], self._cancel, self._buffer
        )
        alone = []
        for (index, generation, request), scores in zip(requests, rows, strict=True):
            try:
                if request[2] == 0:
                    generation.took_part(len(request[0]))
                elif request[2] == 1:
                    alone.append((index, generation, *generation.before_draw(scores[0])))
                else:
                    generation.take(scores)
            except Exception as error:
                self._fail(index, error)
        self._draw(alone)
        for index, generation, _ in requests:
            self._collect(index, generation)

    def _draw(self, alone: list[tuple[int, Generation, Any, Any]]) -> None:
        """Draw for all texts with one row at once, on the model's threads."""
        from rustllm._core.sample import draw_rows

        drawn = draw_rows(
            [generation.sampler for _, generation, _, _ in alone],
            [row for _, _, row, _ in alone],
            [changed for _, _, _, changed in alone],
            getattr(self._model, "threads", 1),
        )
        for (index, generation, row, _), result in zip(alone, drawn, strict=True):
            try:
                if isinstance(result, ArithmeticError):
                    raise not_drawn(result)
                generation.after_draw(result, row)
            except Exception as error:
                self._fail(index, error)

    def _collect(self, index: int, generation: Generation) -> None:
        """Take a text's pieces over; one that has ended leaves."""
        self._ready.extend((index, piece) for piece in generation.pieces())
        if generation.finish_reason is not None:
            self._running.pop(index, None)

    def _fail(self, index: int, error: Exception) -> None:
        if isinstance(error, RustLLMError):
            error.fields.setdefault("index", index)
        self._errors.append(error)
        generation = self._running.pop(index, None)
        if generation is not None:
            generation.close()

    def _leave(self) -> None:
        for generation in self._running.values():
            generation.close()
        self._running.clear()

    def __repr__(self) -> str:
        return f"<Batch: {self.n_running} running, {self.n_waiting} waiting>"
