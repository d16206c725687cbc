"""A transformer that runs: weights bound to a plan, called on the states of sequences."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rustllm._core.engine import Engine, Workspace, first_not_finite
from rustllm._core.kv_cache import KVCache
from rustllm.errors import (
    ArgumentError,
    CancelledError,
    ContextLengthError,
    ModelError,
    OutOfMemoryError,
    OutOfRangeError,
    StateError,
)
from rustllm.models.config import TransformerConfig
from rustllm.models.kv_dtype import checked_kv_dtype
from rustllm.models.state import State, in_use
from rustllm.traits.generation import Generation
from rustllm.traits.model import LanguageModel, Loaded

if TYPE_CHECKING:
    from rustllm.models.chat_template import ChatTemplate
    from rustllm.models.embedding import HiddenRows
    from rustllm.models.plan import Plan
    from rustllm.traits.tokenizer import Tokenizer
    from rustllm.types import EmbeddingArray, Logits

__all__ = ["Transformer"]

# Tokens of a prompt that pass through the layers together: enough to reuse every weight many times
# from the cache, few enough that the activations stay in the second-level cache too.
BATCH = 256


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
    kv_dtype : {"float16", "bfloat16", "int8", "float32"}, optional
        What states keep keys and values in; by default float16, with `exact` float32.
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
        kv_dtype: str | None = None,
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
        self._kv_dtype = checked_kv_dtype(kv_dtype or ("float32" if exact else "float16"))
        self._engine = Engine(plan, weights, exact=exact)
        self._plan = plan
        self._make_tokenizer = tokenizer
        self._tokenizer: Tokenizer[Any] | None = None
        self._tokenizer_lock = threading.Lock()
        self._end_ids = frozenset(end_ids)
        self._bos_id = bos_id
        self._metadata = metadata or {}
        self._chat_template: ChatTemplate | None = None
        self._fingerprint: str | None = None
        self._hidden_rows: HiddenRows | None = None
        # Scratch memory of calls that have ended, for the next ones.
        self._workspaces: list[Workspace] = []
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
    def kv_dtype(self) -> str:
        """What states keep keys and values in, unless they are made with another."""
        return self._kv_dtype

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

    @property
    def fingerprint(self) -> str:
        """A hash of what the model computes, by which saved states know their model."""
        if self._fingerprint is None:
            from rustllm.models.fingerprint import fingerprint

            self._fingerprint = fingerprint(self._config, self._engine.weights, exact=self._exact)
        return self._fingerprint

    def new_state(self, context: int | None = None, kv_dtype: str | None = None) -> State:
        """Return an empty state.

        Parameters
        ----------
        context : int, optional
            Tokens that fit; by default what the model was trained for. Memory is taken as tokens
            are read.
        kv_dtype : {"float16", "bfloat16", "int8", "float32"}, optional
            What keys and values are kept in; by default the model's. int8, with a scale for 32
            numbers, takes little more than half of float16's memory.

        Raises
        ------
        ArgumentError
            More than the model was trained for, or none; an unknown dtype.
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
            config.n_layers,
            config.n_kv_heads,
            config.head_dim,
            context,
            self._kv_dtype if kv_dtype is None else checked_kv_dtype(kv_dtype),
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
        OutOfMemoryError
            There is none for the keys and values; the state is unchanged.
        """
        self.require(Loaded)
        if logits not in ("last", "all"):
            raise ArgumentError(f'logits must be "last" or "all", not {logits!r}')
        if state._model is not self:
            raise StateError("the state belongs to another model")
        if not isinstance(ids, (np.ndarray, Sequence)):
            ids = list(ids)
        every = logits == "all"
        scores = self._read([(ids, state, len(ids) if every else 1)])[0]
        return scores if every else scores[0]

    def forward_batch(
        self,
        ids: Sequence[Iterable[int]],
        states: Sequence[State],
        logits: Literal["last", "all"] = "last",
    ) -> Logits | list[Logits]:
        """Read several sequences in one pass, each into its own state.

        Every weight is fetched once for all of them; the scores are the same bits as from
        :meth:`forward` for each alone.

        Parameters
        ----------
        ids : sequence of iterables of int
            What to read, at least one token each; lengths may differ.
        states : sequence of State
            As many, all different.
        logits : {"last", "all"}
            Scores after the last token of each sequence, or after each token.

        Returns
        -------
        numpy.ndarray or list of numpy.ndarray
            float32 ``[n_sequences, n_vocab]``; with ``"all"`` a list of ``[n_ids, n_vocab]``.

        Raises
        ------
        ArgumentError
            There are no sequences, or not as many as states, or a state appears twice.
        ContextLengthError, OutOfRangeError, StateError, CancelledError, ModelError
            As in :meth:`forward`; no state is changed.
        """
        self.require(Loaded)
        if logits not in ("last", "all"):
            raise ArgumentError(f'logits must be "last" or "all", not {logits!r}')
        if len(ids) != len(states):
            raise ArgumentError(f"{len(ids)} sequences and {len(states)} states")
        if not ids:
            raise ArgumentError("there are no sequences")
        tokens = [self._tokens(part) for part in ids]
        every = logits == "all"
        rows = self._read(
            [
                (part, state, len(part) if every else 1)
                for part, state in zip(tokens, states, strict=True)
            ]
        )
        return rows if every else np.concatenate(rows)

    def embed(
        self,
        text: str | Sequence[str],
        *,
        pooling: Literal["mean", "last", "first", "cls", "none"] = "mean",
        normalize: bool = True,
    ) -> EmbeddingArray | list[EmbeddingArray]:
        """Return vectors for texts: what the model holds after its last layer and norm.

        Parameters
        ----------
        text : str or sequence of str
            Special tokens in it are plain text; the model's first token is put in front where it
            wants one.
        pooling : {"mean", "last", "first", "cls", "none"}
            The mean over a text's tokens, the vector of the last (which alone has seen all) or the
            first (also called cls), or one for each.
        normalize : bool
            Scale every vector to length 1.

        Returns
        -------
        numpy.ndarray or list of numpy.ndarray
            float32 ``[n_embd]`` for a text, ``[n_texts, n_embd]`` for several; with ``"none"``
            ``[n_tokens, n_embd]``, in a list for several.

        Raises
        ------
        ArgumentError
            An unknown pooling, or a text without tokens.
        ContextLengthError
            A text is longer than the model was trained for.

        Notes
        -----
        Texts are read together; each vector has the same bits as for its text alone.
        """
        from rustllm.models.embedding import embed

        self.require(Loaded)
        return embed(self, text, pooling, normalize)

    @property
    def _hidden(self) -> HiddenRows:
        """The engine that stops after the last layer, made on first use."""
        from rustllm.models.embedding import HiddenRows

        if self._hidden_rows is None:
            self._hidden_rows = HiddenRows(self._plan, self._engine.weights, self._exact)
        return self._hidden_rows

    def _read(
        self,
        requests: Sequence[tuple[Any, State, int]],
        cancel: Any = None,
        buffer: list[Any] | None = None,
    ) -> list[Logits]:
        tokens = [self._tokens(ids) for ids, _, _ in requests]
        states = [state for _, state, _ in requests]
        for state in states:
            if state._model is not self:
                raise StateError("the state belongs to another model")
        with in_use(states, cancel) as flag:
            before = [state.position for state in states]
            for part, state in zip(tokens, states, strict=True):
                if state.position + len(part) > state.context:
                    raise ContextLengthError(
                        f"{len(part)} tokens after {state.position} do not fit into a context of "
                        f"{state.context}",
                        needed=state.position + len(part),
                        context=state.context,
                        hint="shorten the prompt, or make the state with a larger context",
                    )
            try:
                wanted = [n for _, _, n in requests]
                scores = (
                    states[0]._rows.take()
                    if buffer is None and wanted == [1]
                    else _rows(buffer, sum(wanted), self._config.n_vocab)
                )
                self._compute(tokens, states, wanted, scores, flag)
            except BaseException as error:
                for state, n in zip(states, before, strict=True):
                    state._cut(n)
                if isinstance(error, MemoryError) and not isinstance(error, OutOfMemoryError):
                    raise OutOfMemoryError(str(error) or "no memory for the scores") from error
                raise
            for part, state in zip(tokens, states, strict=True):
                state._ids.frombytes(part.tobytes())
        ends = np.cumsum(wanted).tolist()
        return [scores[end - n : end] for end, n in zip(ends, wanted, strict=True)]

    def _compute(
        self,
        tokens: list[Any],
        states: list[State],
        wanted: list[int],
        scores: Logits,
        cancel: Any,
    ) -> None:
        """Fill `scores` with those after the last tokens of each sequence, as many as wanted."""
        done = [0] * len(tokens)
        workspace = self._workspaces.pop() if self._workspaces else Workspace()
        try:
            while call := _next_call(tokens, done, wanted):
                kept = np.concatenate([part.kept for part in call])
                places = np.concatenate([part.places for part in call])
                # Rows that lie one after the other are written where they belong.
                direct = len(places) == 0 or places[-1] - places[0] + 1 == len(places)
                rows = (
                    scores[places[0] : places[-1] + 1]
                    if direct and len(places)
                    else np.empty((len(places), self._config.n_vocab), np.float32)
                )
                caches = [(states[part.index]._cache, part.tokens) for part in call]
                if not self._engine.forward(workspace, caches, kept, rows, self._threads, cancel):
                    raise CancelledError("the call was cancelled")
                if (at := first_not_finite(rows)) is not None:
                    raise ModelError(
                        f"the score of token {at[1]} is {rows[at]}",
                        path=self.path,
                        hint="a weight is not finite, or the activations overflow",
                    )
                if not direct:
                    scores[places] = rows
        finally:
            self._workspaces.append(workspace)

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
        **options: Any,
    ) -> Generation:
        """Answer `messages` by the file's own chat template.

        Parameters
        ----------
        messages : sequence of mappings
            Each with ``role`` and ``content``. A special token spelled out in a content is plain
            text to the model.
        **options
            As in :meth:`generate`. A `state` keeps what it shares with the conversation, so that
            the next turn reads only what is new.
        """
        # The template decides anew how the whole conversation reads.
        if options.get("state") is not None:
            options.setdefault("reuse_prefix", True)
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


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens of one sequence in one call of the engine."""

    index: int  # of the sequence
    tokens: Any
    kept: Any  # places in the call of the tokens whose scores are wanted
    places: Any  # where those go among all scores; ascending


def _next_call(tokens: list[Any], done: list[int], wanted: list[int]) -> list[_Part]:
    """Take up to `BATCH` tokens that are not done yet, sequence by sequence."""
    call: list[_Part] = []
    n = row = 0
    for index, all_tokens in enumerate(tokens):
        part = all_tokens[done[index] : done[index] + BATCH - n]
        if len(part):
            first = len(all_tokens) - wanted[index] - done[index]  # wanted from there on
            skipped = min(max(first, 0), len(part))
            kept = np.arange(n + skipped, n + len(part), dtype=np.int32)
            call.append(_Part(index, part, kept, kept - n - first + row))
            done[index] += len(part)
            n += len(part)
        row += wanted[index]
    return call


def _rows(buffer: list[Any] | None, n: int, n_vocab: int) -> Logits:
    """Room for `n` rows of scores; `buffer`, a list of one array or none, keeps it for later."""
    if buffer and len(buffer[0]) >= n:
        kept: Logits = buffer[0][:n]
        return kept
    rows: Logits = np.empty((n, n_vocab), np.float32)
    if buffer is not None:
        buffer[:] = [rows]
    return rows
