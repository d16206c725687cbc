"""What a model is: a config and weights; what a language model adds: state, logits, text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, cast

import numpy as np

from rustllm.errors import (
    ArgumentError,
    ContextLengthError,
    OutOfRangeError,
    StateError,
    UnsupportedError,
)
from rustllm.traits.config import LanguageModelConfig, ModelConfig
from rustllm.traits.generation import Ending, Generation, Piece
from rustllm.traits.sampling import Sampling
from rustllm.traits.tokenizer import Tokenizer

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import TypeVar

    from rustllm.traits.batch import Batch
    from rustllm.traits.prefix_cache import PrefixCache
    from rustllm.traits.sampling import Constraint, LogitsProcessor
    from rustllm.traits.scoring import Scores
    from rustllm.types import EmbeddingArray, Logits, PathLikeStr

    PhaseT = TypeVar("PhaseT", covariant=True, default="Loaded")
    ConfigT = TypeVar(
        "ConfigT", bound=LanguageModelConfig, covariant=True, default=LanguageModelConfig
    )
    StateT = TypeVar("StateT", bound="ModelState", default=Any)
else:
    from typing import TypeVar

    PhaseT = TypeVar("PhaseT", covariant=True)
    ConfigT = TypeVar("ConfigT", bound=LanguageModelConfig, covariant=True)
    StateT = TypeVar("StateT", bound="ModelState")

__all__ = [
    "Closed",
    "LanguageModel",
    "Loaded",
    "Model",
    "ModelState",
    "Unloaded",
]


class Unloaded:
    """Phase of a model that knows its config and holds no weights yet."""


class Loaded:
    """Phase of a model that can be used."""


class Closed:
    """Phase of a model whose weights and mappings were given back."""


class Model(ABC, Generic[PhaseT]):
    """A config and the weights that go with it.

    The type parameter is the phase (`Unloaded`, `Loaded`, `Closed`): a function that needs a model
    it can run asks for ``Model[Loaded]``, a type checker then refuses a closed one, and `require`
    refuses it at run time. An implementation gives `config`; one that holds files or memory also
    replaces `_release`.

    Examples
    --------
    >>> from rustllm.testing import BigramModel
    >>> with BigramModel.fit("abab") as model:
    ...     model.phase.__name__
    'Loaded'
    >>> model.phase.__name__
    'Closed'
    """

    _phase: type = Loaded

    @property
    @abstractmethod
    def config(self) -> ModelConfig:
        """The hyper-parameters."""

    @property
    def phase(self) -> type:
        """The phase that the type parameter stands for: `Unloaded`, `Loaded` or `Closed`."""
        return self._phase

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        raise UnsupportedError(f"{type(self).__name__} does not count its parameters")

    def require(self, phase: type) -> None:
        """Raise StateError unless the model is in `phase`."""
        if self._phase is not phase:
            raise StateError(
                f"this needs a model that is {phase.__name__}, and it is {self._phase.__name__}",
                phase=self._phase.__name__,
            )

    def close(self) -> Model[Closed]:
        """Give back what the model holds. Closing twice is harmless.

        Returns
        -------
        Model[Closed]
            The same object, under the type that says what it is now.
        """
        if self._phase is not Closed:
            self._phase = Closed
            self._release()
        return cast("Model[Closed]", self)

    def _release(self) -> None:  # noqa: B027  a model of plain arrays has nothing to give back
        """Drop weights, close files; called once, by `close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class ModelState(ABC):
    """What a model remembers of the tokens it has read; for a transformer, its KV cache.

    An implementation gives the abstract methods; `save` and `load` are refused by default.

    Notes
    -----
    Belongs to one call at a time. `fork` gives each of several continuations a state of its own.
    """

    @property
    @abstractmethod
    def position(self) -> int:
        """Number of tokens read so far."""

    @property
    @abstractmethod
    def context(self) -> int:
        """Number of tokens that fit."""

    @abstractmethod
    def truncate(self, n: int) -> None:
        """Forget all but the first `n` tokens; OutOfRangeError when there are fewer."""

    @abstractmethod
    def fork(self) -> Self:
        """Return an independent state with the same past."""

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens read so far, not to be changed; UnsupportedError where they are not kept."""
        raise UnsupportedError(f"{type(self).__name__} does not keep the tokens it has read")

    def reset(self) -> None:
        """Forget everything."""
        self.truncate(0)

    def save(self, path: PathLikeStr) -> None:
        """Write the state to a file."""
        raise UnsupportedError(f"{type(self).__name__} cannot be saved", path=path)

    def load(self, path: PathLikeStr) -> None:
        """Replace the state by one that `save` wrote for the same model."""
        raise UnsupportedError(f"{type(self).__name__} cannot be loaded", path=path)


class LanguageModel(Model[PhaseT], Generic[PhaseT, ConfigT, StateT]):
    """A model that reads tokens and says which may come next.

    An implementation gives `config`, `tokenizer`, `new_state` and `forward`; text generation has a
    default built on those, chat needs `format_chat`, and `embed` is refused unless defined. The
    type parameters are the phase, the class of the config and the class of the state.

    Notes
    -----
    The weights are read only, so any number of threads may use one model, each with its own state.

    Examples
    --------
    >>> from rustllm.testing import BigramModel
    >>> model = BigramModel.fit("the cat sat. the cat ran. ")
    >>> "".join(model.generate("the c", max_tokens=3, temperature=0))
    'at '
    """

    @property
    @abstractmethod
    def config(self) -> ConfigT:
        """The hyper-parameters."""

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer[Any]:
        """The tokenizer whose ids the model reads."""

    @abstractmethod
    def new_state(self, context: int | None = None) -> StateT:
        """Return an empty state for up to `context` tokens, by default what the config allows."""

    @abstractmethod
    def forward(
        self, ids: Iterable[int], state: StateT, logits: Literal["last", "all"] = "last"
    ) -> Logits:
        """Read `ids` after what `state` holds, and return the scores of what may follow.

        Returns
        -------
        ndarray of float32
            ``[n_vocab]`` after the last id, or ``[n_ids, n_vocab]`` after each with ``"all"``.

        Raises
        ------
        ContextLengthError
            The ids do not fit into the state, which is unchanged.
        OutOfRangeError
            An id is outside the vocabulary; the state is unchanged.
        """

    def embed(self, text: str) -> EmbeddingArray | list[EmbeddingArray]:
        """Return one vector for `text`, ``float32 [n_embd]``."""
        raise UnsupportedError(f"{type(self).__name__} gives no embeddings")

    def format_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Write `messages` as the prompt that the model was trained to answer."""
        raise UnsupportedError(
            f"{type(self).__name__} has no chat template", hint="use generate with a plain prompt"
        )

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Generation:
        """Answer `messages`, each with a ``role`` and a ``content``; `options` as in `generate`."""
        return self.generate(self.format_chat(messages), **options)

    def generate(
        self,
        prompt: str | Iterable[int],
        *,
        max_tokens: int = 128,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_last_n: int = 64,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        stop_ids: Iterable[int] = (),
        top_logprobs: int = 0,
        logits_processors: Sequence[LogitsProcessor] = (),
        constraint: Constraint | None = None,
        regex: str | None = None,
        json_schema: Mapping[str, Any] | bool | str | None = None,
        json: bool = False,
        callback: Callable[[Piece], object] | None = None,
        context: int | None = None,
        state: StateT | None = None,
        reuse_prefix: bool = False,
        prefix_cache: PrefixCache | None = None,
        context_shift: int | None = None,
        draft: Literal["lookup"] | LanguageModel[Any, Any, Any] | None = None,
        draft_tokens: int = 8,
    ) -> Generation:
        """Return the continuation of `prompt`, an iterator of pieces of text.

        Parameters
        ----------
        prompt : str or iterable of int
            Text, in which special tokens are recognised, or ids.
        max_tokens : int
            Tokens to produce at most.
        temperature, top_k, top_p, min_p, typical_p, seed
            How a token is drawn; see `Sampling`.
        repeat_penalty, frequency_penalty, presence_penalty, repeat_last_n, logit_bias
            How scores are changed before; see `Sampling`.
        stop : str or sequence of str
            Texts that end the generation; none of them is given out, not even in part.
        stop_ids : iterable of int
            Tokens that end the generation, besides `end_ids`; none of them is given out.
        top_logprobs : int
            Give each piece the log-probabilities of this many likeliest tokens at each place.
        logits_processors : sequence of LogitsProcessor
            Functions that change the scores, after bias and penalties.
        constraint : Constraint, optional
            A form that the text must have; see :mod:`rustllm.constrain`.
        regex, json_schema, json
            Short for the constraints of these names: a pattern that the whole text matches, a
            schema that it is valid for, or any JSON value. At most one of the four.
        callback : callable, optional
            Called with each piece; the text ends where it returns False.
        context : int, optional
            Tokens that prompt and text may take together; by default what the model allows.
        state : ModelState, optional
            Continue after what it holds.
        reuse_prefix : bool
            The prompt is the whole text: keep what `state` holds of its beginning, forget the rest
            of `state`, and read on from there.
        prefix_cache : PrefixCache, optional
            Go on from the longest beginning of the prompt that it has kept, and keep this text.
        context_shift : int, optional
            Where the context is full, keep this many first tokens and the later half of the others
            and read those anew; the text goes on as from a prompt of just these. Without it the
            text ends there.
        draft : "lookup" or LanguageModel, optional
            Guess tokens by looking them up in prompt and text, or with a smaller model of the same
            vocabulary, and confirm several in one pass. The text is the same as without.
        draft_tokens : int
            Tokens to guess at a time at most.

        Raises
        ------
        ArgumentError
            A setting is out of its range, or the prompt is empty.
        ContextLengthError
            The prompt does not fit.
        """
        self.require(Loaded)
        if regex is not None or json_schema is not None or json:
            from rustllm.constrain import from_options

            constraint = from_options(constraint, regex, json_schema, json)
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repeat_penalty=repeat_penalty,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            repeat_last_n=repeat_last_n,
            logit_bias=logit_bias or {},
            seed=seed,
        )
        ending = Ending(
            max_tokens=max_tokens,
            stops=(stop,) if isinstance(stop, str) else tuple(stop),
            end_ids=self.end_ids | frozenset(stop_ids),
            top_logprobs=top_logprobs,
            callback=callback,
            context_shift=context_shift,
        )
        if isinstance(prompt, str):
            ids = self._encode_prompt(prompt)
        else:
            ids = [int(id) for id in prompt]
        return Generation(
            self,
            ids,
            state,
            context=context,
            sampling=sampling,
            ending=ending,
            processors=tuple(logits_processors),
            constraint=constraint,
            reuse_prefix=reuse_prefix,
            prefix_cache=prefix_cache,
            draft=draft,
            draft_tokens=draft_tokens,
        )

    def generate_batch(
        self, prompts: Iterable[Any] = (), *, max_sequences: int = 8, **options: Any
    ) -> Batch:
        """Return the continuations of many prompts, an iterator of ``(index, piece)``.

        Texts run together, `max_sequences` at a time; where one ends the next begins. Each is the
        one that :meth:`generate` gives alone for the same seed, whatever runs beside it.

        Parameters
        ----------
        prompts : iterable
            Each a text, ids, or a mapping with ``prompt`` or ``messages`` and options of its own.
            Read as places become free. More may come later with :meth:`Batch.add`.
        max_sequences : int
            Texts that run at a time.
        **options
            As in :meth:`generate`, for every text that does not have its own.

        Examples
        --------
        >>> from rustllm.testing import BigramModel
        >>> model = BigramModel.fit("the cat sat. the cat ran. ")
        >>> model.generate_batch(["the c", "a", "s"], max_tokens=3, temperature=0).texts()
        ['at ', 't c', 'at ']
        """
        from rustllm.traits.batch import Batch

        self.require(Loaded)
        return Batch(self, prompts, max_sequences=max_sequences, **options)

    def score(
        self,
        text: str | Iterable[int],
        *,
        top_logprobs: int = 0,
        context: int | None = None,
    ) -> Scores:
        """Return the log-probability of each token of `text` after those before it.

        Parameters
        ----------
        text : str or iterable of int
            Text, read as a prompt of :meth:`generate` is, or ids.
        top_logprobs : int
            Return this many likeliest tokens for each place as well.
        context : int, optional
            Tokens that fit; by default what the model allows.

        Raises
        ------
        ArgumentError
            The text has no tokens.
        ContextLengthError
            It does not fit.
        """
        from rustllm.traits.scoring import score

        self.require(Loaded)
        ids = self._encode_prompt(text) if isinstance(text, str) else [int(id) for id in text]
        if not ids:
            raise ArgumentError("the text has no tokens")
        state = self.new_state(context)
        if len(ids) > state.context:
            raise ContextLengthError(
                f"a text of {len(ids)} tokens does not fit into a context of {state.context}",
                needed=len(ids),
                context=state.context,
            )
        for id in ids:
            if not 0 <= id < self.config.n_vocab:
                raise OutOfRangeError(f"token id {id} is outside the vocabulary", token=id)
        return score(self, ids, state, top_logprobs=top_logprobs)

    def forward_batch(
        self,
        ids: Sequence[Iterable[int]],
        states: Sequence[StateT],
        logits: Literal["last", "all"] = "last",
    ) -> Logits | list[Logits]:
        """Read several sequences, each into its own state; the scores of :meth:`forward` for each.

        Returns
        -------
        ndarray or list of ndarray
            float32 ``[n_sequences, n_vocab]``; with ``"all"`` a list of ``[n_ids, n_vocab]``.
        """
        if not ids or len(ids) != len(states):
            raise ArgumentError(f"{len(ids)} sequences and {len(states)} states")
        rows = [self.forward(part, state, logits) for part, state in zip(ids, states, strict=True)]
        return rows if logits == "all" else np.stack(rows)

    def _encode_prompt(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, allowed_special="all"))

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a generation."""
        return frozenset()

    def _read(
        self,
        requests: Sequence[tuple[list[int], Any, int]],
        cancel: Any = None,
        buffer: list[Any] | None = None,
    ) -> list[Logits]:
        """Read tokens into states; for each the scores after its last tokens, as many as asked.

        `cancel`, int32 ``[1]``, becomes non-zero to stop; then states are as they were. Scores may
        lie in `buffer`, where one is given, until it is given again.
        """
        rows: list[Logits] = []
        for ids, state, n in requests:
            scores = self.forward(ids, state, "all" if n > 1 else "last")
            rows.append(
                np.ascontiguousarray(scores, np.float32).reshape(-1, scores.shape[-1])[
                    len(ids) - n if n > 1 else 1 - n :
                ]
            )
        return rows
