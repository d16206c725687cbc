"""A transformer that runs: weights bound to a plan, and the state of a sequence."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from rustllm._core.engine import Engine, Workspace, first_not_finite
from rustllm._core.kv_cache import KVCache
from rustllm.errors import (
    ArgumentError,
    CancelledError,
    ContextLengthError,
    ModelError,
    OutOfRangeError,
    StateError,
)
from rustllm.models.config import TransformerConfig
from rustllm.traits.generation import Generation
from rustllm.traits.model import LanguageModel, Loaded, ModelState

if TYPE_CHECKING:
    from rustllm.models.chat_template import ChatTemplate
    from rustllm.models.plan import Plan
    from rustllm.traits.tokenizer import Tokenizer
    from rustllm.types import Logits

__all__ = ["State", "Transformer"]

# Tokens of a prompt that pass through the layers together: enough to reuse every weight many times
# from the cache, few enough that the activations stay in the second-level cache too.
BATCH = 256


class State(ModelState):
    """The tokens a model has read, as keys and values of every layer.

    Made by :meth:`Transformer.new_state`.

    Notes
    -----
    One call at a time: a second one on the same state raises `StateError` at once instead of
    waiting. Different states of one model run in any number of threads. :meth:`cancel` may be
    called from any thread.
    """

    def __init__(self, model: Transformer, cache: KVCache) -> None:
        self._model = model
        self._cache = cache
        self._workspace = Workspace()
        self._lock = threading.Lock()
        self._cancel = np.zeros(1, np.int32)

    @property
    def position(self) -> int:
        """Number of tokens read so far."""
        return self._cache.position

    @property
    def context(self) -> int:
        """Number of tokens that fit."""
        return self._cache.context

    @property
    def nbytes(self) -> int:
        """Bytes of the cache's address space; positions never written take no memory."""
        return self._cache.nbytes

    def truncate(self, n: int) -> None:
        """Forget all but the first `n` tokens.

        Raises
        ------
        OutOfRangeError
            There are fewer.
        """
        if not 0 <= n <= self.position:
            raise OutOfRangeError(f"cannot keep {n} of {self.position} tokens")
        with self._use():
            self._cache.position = n

    def fork(self) -> Self:
        """Return an independent state with the same past, a copy."""
        with self._use():
            return type(self)(self._model, self._cache.copy())

    def cancel(self) -> None:
        """Stop the call that is running on this state; it raises `CancelledError`.

        Without a call running this does nothing.
        """
        if self._lock.locked():
            self._cancel[0] = 1

    def _use(self, cancel: Any = None) -> _Use:
        return _Use(self, cancel)

    def __repr__(self) -> str:
        return f"<State {self.position} of {self.context} tokens>"


class _Use:
    """Holds a state for one call."""

    def __init__(self, state: State, cancel: Any) -> None:
        self._state = state
        self._cancel = np.zeros(1, np.int32) if cancel is None else cancel

    def __enter__(self) -> None:
        if not self._state._lock.acquire(blocking=False):
            raise StateError(
                "the state is in use by another thread",
                hint="give each thread a state of its own: model.new_state()",
            )
        self._state._cancel = self._cancel

    def __exit__(self, *_: object) -> None:
        self._state._lock.release()


class Transformer(LanguageModel[Loaded, TransformerConfig, State]):
    """A decoder-only transformer on the CPU.

    Made by :func:`rustllm.load_model`.

    Parameters
    ----------
    config : TransformerConfig
    plan : Plan
    weights : mapping
        What the plan names, packed; see ``_core.engine``.
    threads : int
        Threads that a call uses; results do not depend on it.
    exact : bool
        Keep activations and caches in float32 instead of int8 and half precision.
    tokenizer : callable
        Makes the tokenizer when it is first asked for.
    end_ids : iterable of int
        Ids that end a generation.
    bos_id : int, optional
        Id that every prompt begins with.
    metadata : mapping, optional
        The file's, for its chat template.
    path : Path, optional
        The file, for messages.

    Notes
    -----
    Immutable, so threads may share it, each with a state of its own. Calls that overlap run on one
    thread each while the pool is taken.
    """

    def __init__(
        self,
        config: TransformerConfig,
        plan: Plan,
        weights: Mapping[str, Any],
        *,
        threads: int,
        exact: bool = False,
        tokenizer: Any = None,
        end_ids: Iterable[int] = (),
        bos_id: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        config.validate()
        self._config = config
        self._threads = threads
        self._exact = exact
        self._engine = Engine(plan, weights, exact=exact)
        self._plan = plan
        self._make_tokenizer = tokenizer
        self._tokenizer: Tokenizer[Any] | None = None
        self._tokenizer_lock = threading.Lock()
        self._end_ids = frozenset(end_ids)
        self._bos_id = bos_id
        self._metadata = metadata or {}
        self._chat_template: ChatTemplate | None = None
        self.path = path

    @property
    def config(self) -> TransformerConfig:
        """The hyper-parameters."""
        return self._config

    @property
    def plan(self) -> Plan:
        """The operations of a forward pass; print it to read it."""
        return self._plan

    @property
    def threads(self) -> int:
        """Threads that a call uses."""
        return self._threads

    @property
    def exact(self) -> bool:
        """Whether activations stay in float32."""
        return self._exact

    @property
    def tokenizer(self) -> Tokenizer[Any]:
        """The model's own tokenizer, built on first use."""
        if self._tokenizer is None:
            with self._tokenizer_lock:
                if self._tokenizer is None:
                    if self._make_tokenizer is None:
                        raise StateError("this model came without a tokenizer")
                    self._tokenizer = self._make_tokenizer()
        return self._tokenizer

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a generation."""
        return self._end_ids

    def new_state(self, context: int | None = None) -> State:
        """Return an empty state.

        Parameters
        ----------
        context : int, optional
            Tokens that fit; by default what the model was trained for. Memory is taken as tokens
            are read.

        Raises
        ------
        ArgumentError
            More than the model was trained for, or none.
        OutOfMemoryError
            The address space cannot be had.
        """
        self.require(Loaded)
        config = self._config
        if context is None:
            context = config.n_ctx
        if not 1 <= context <= config.n_ctx:
            raise ArgumentError(
                f"a context of {context} tokens: the model was trained for 1 to {config.n_ctx}",
                context=context,
            )
        cache = KVCache(
            config.n_layers, config.n_kv_heads, config.head_dim, context, not self._exact
        )
        return State(self, cache)

    def forward(
        self, ids: Iterable[int], state: State, logits: Literal["last", "all"] = "last"
    ) -> Logits:
        """Read `ids` after what `state` holds, and return the scores of what may follow.

        Parameters
        ----------
        ids : iterable of int
            At least one token.
        state : State
            Of this model.
        logits : {"last", "all"}
            Scores after the last token, or after each.

        Returns
        -------
        numpy.ndarray
            float32 ``[n_vocab]``, or ``[n_ids, n_vocab]`` with ``"all"``.

        Raises
        ------
        ContextLengthError
            The ids do not fit; the state is unchanged.
        OutOfRangeError
            An id is outside the vocabulary; the state is unchanged.
        StateError
            The state belongs to another model or is in use by another thread.
        CancelledError
            Through :meth:`State.cancel`; the state is unchanged.
        ModelError
            The scores are not finite: a weight is not a number, or the model overflows.
        """
        self.require(Loaded)
        if logits not in ("last", "all"):
            raise ArgumentError(f'logits must be "last" or "all", not {logits!r}')
        if state._model is not self:
            raise StateError("the state belongs to another model")
        tokens = self._tokens(ids)
        every = logits == "all"
        scores = self._read([(tokens, state, len(tokens) if every else 1)])[0]
        return scores if every else scores[0]

    def _read(self, requests: Sequence[tuple[Any, State, int]], cancel: Any = None) -> list[Logits]:
        ids, state, n = requests[0]
        if state._model is not self:
            raise StateError("the state belongs to another model")
        with state._use(cancel):
            before = state._cache.position
            try:
                return [self._forward(self._tokens(ids), state, n > 1)[-n:]]
            except BaseException:
                state._cache.position = before
                raise

    def _engine_weights(self) -> dict[str, Any]:
        """What the engine computes with, by name."""
        return self._engine.weights

    def _tokens(self, ids: Iterable[int]) -> Any:
        if not isinstance(ids, (np.ndarray, Sequence)):
            ids = list(ids)
        tokens = np.asarray(ids)
        if tokens.ndim != 1 or tokens.size == 0:
            raise ArgumentError("expected a row of at least one token id")
        if tokens.dtype.kind not in "iu":
            raise ArgumentError(f"token ids must be integers, not {tokens.dtype}")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self._config.n_vocab:
            bad = low if low < 0 else high
            raise OutOfRangeError(
                f"token id {bad} is outside the vocabulary of {self._config.n_vocab}", token=bad
            )
        return tokens.astype(np.int32, copy=False)

    def _forward(self, tokens: Any, state: State, every: bool) -> Any:
        n = len(tokens)
        cache = state._cache
        if cache.position + n > cache.context:
            raise ContextLengthError(
                f"{n} tokens after {cache.position} do not fit into a context of {cache.context}",
                needed=cache.position + n,
                context=cache.context,
                hint="shorten the prompt, or make the state with a larger context",
            )
        out = np.empty((n if every else 1, self._config.n_vocab), np.float32)
        for start in range(0, n, BATCH):
            part = tokens[start : start + BATCH]
            if every:
                kept = np.arange(len(part), dtype=np.int32)
                scores = out[start : start + len(part)]
            elif start + len(part) == n:
                kept = np.array([len(part) - 1], np.int32)
                scores = out
            else:
                kept = np.empty(0, np.int32)
                scores = out[:0]
            if not self._engine.forward(
                state._workspace, [(cache, part)], kept, scores, self._threads, state._cancel
            ):
                raise CancelledError("the call was cancelled")
        if (at := first_not_finite(out)) is not None:
            raise ModelError(
                f"the score of token {at[1]} is {out[at]}",
                path=self.path,
                hint="a weight is not finite, or the activations overflow",
            )
        return out

    @property
    def has_chat_template(self) -> bool:
        """Whether the file itself says how messages are written: it was trained to answer."""
        return self._metadata.get("tokenizer.chat_template") is not None

    def format_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Write `messages` with the file's own chat template.

        Raises
        ------
        UnsupportedError
            The file has no template and its vocabulary tells no form.
        """
        return self._template().render(messages)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        context: int | None = None,
        **options: Any,
    ) -> Generation:
        """Answer `messages` by the file's own chat template.

        Parameters
        ----------
        messages : sequence of mappings
            Each with ``role`` and ``content``. A special token spelled out in a content is plain
            text to the model.
        context : int, optional
            Tokens that the conversation and its answer may take together.
        **options
            As in :meth:`generate`.
        """
        if context is not None:
            options["state"] = self.new_state(context)
        end = self._template().end_of_turn
        if end is not None:
            options["stop_ids"] = {*options.get("stop_ids", ()), self.tokenizer.special_tokens[end]}
        return self.generate(self._encode_chat(messages), **options)

    def _template(self) -> ChatTemplate:
        from rustllm.models.chat_template import ChatTemplate

        if self._chat_template is None:
            self._chat_template = ChatTemplate.from_metadata(
                self._metadata, special_tokens=self.tokenizer.special_tokens
            )
        return self._chat_template

    def _encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        from rustllm.models.chat_template import encode_pieces

        return self._with_bos(encode_pieces(self._template().pieces(messages), self.tokenizer))

    def _encode_prompt(self, text: str) -> list[int]:
        return self._with_bos(list(self.tokenizer.encode(text, allowed_special="all")))

    def _with_bos(self, ids: list[int]) -> list[int]:
        """Begin with the model's first token where it wants one and the text has not given it."""
        if self._bos_id is None or ids[:1] == [self._bos_id]:
            return ids
        return [self._bos_id, *ids]

    def __repr__(self) -> str:
        c = self._config
        name = c.name or c.architecture
        return f"<{type(self).__name__} {name}: {c.n_layers} layers, {c.n_embd} wide>"
