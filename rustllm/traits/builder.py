"""Building a model in steps whose order the type checker follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from rustllm.errors import StateError, UnsupportedError

if TYPE_CHECKING:
    from rustllm.traits.config import ModelConfig
    from rustllm.traits.model import Loaded, Model
    from rustllm.traits.tokenizer import Tokenizer
    from rustllm.types import PathLikeStr, Weights

__all__ = ["ModelBuilder", "NeedsConfig", "NeedsWeights", "Ready"]


class NeedsConfig:
    """State of a builder that has nothing yet."""


class NeedsWeights:
    """State of a builder that has a config."""


class Ready:
    """State of a builder that has all that a model needs."""


StepT = TypeVar("StepT", covariant=True)
Assembler = Callable[..., "Model[Loaded]"]

_STEPS: dict[type, str] = {
    NeedsConfig: "config(...)",
    NeedsWeights: "weights(...)",
    Ready: "build()",
}


class ModelBuilder(Generic[StepT]):
    """Puts a model together: config, then weights, then `build`.

    The type parameter is the step that comes next: ``ModelBuilder[NeedsConfig]`` becomes
    ``ModelBuilder[NeedsWeights]`` by `config`, that becomes ``ModelBuilder[Ready]`` by `weights`,
    and only that can `build`. Steps out of order are errors of the type checker, and StateError at
    run time. A subclass gives `assemble` to build models of its own kind; without one, the
    architectures of `rustllm.models` are used.

    Notes
    -----
    Immutable: a step returns a new builder and leaves the old one as it was, so a builder can be
    shared, kept half-filled, and continued in several ways.

    Examples
    --------
    >>> from rustllm.testing import BigramBuilder, BigramConfig
    >>> import numpy as np
    >>> step = BigramBuilder().config(BigramConfig(n_vocab=256))
    >>> model = step.weights({"counts": np.ones((256, 256), np.float32)}).build()
    >>> model.config.n_vocab
    256
    >>> step.build()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    rustllm.errors.StateError: build() comes too early (call weights(...) first)
    """

    _step: type = NeedsConfig
    _config: ModelConfig | None = None
    _weights: Any = None
    _tokenizer: Tokenizer[Any] | None = None
    _options: Mapping[str, Any] = {}
    _assembler: ClassVar[str] = "rustllm.models:assemble"

    def __init__(self: ModelBuilder[NeedsConfig]) -> None:
        pass

    def _next(self, **changes: Any) -> Any:
        successor = object.__new__(type(self))
        successor.__dict__.update(self.__dict__, **changes)
        return successor

    def _require(self, step: type, what: str) -> None:
        if self._step is step:
            return
        order = list(_STEPS)
        early = order.index(self._step) < order.index(step)
        raise StateError(
            f"{what} comes too {'early' if early else 'late'}",
            hint=f"call {_STEPS[self._step]} {'first' if early else 'now'}",
            step=self._step.__name__,
        )

    @property
    def step(self) -> type:
        """The step that the type parameter stands for."""
        return self._step

    def config(self: ModelBuilder[NeedsConfig], config: ModelConfig) -> ModelBuilder[NeedsWeights]:
        """Take the hyper-parameters, checked now.

        Raises
        ------
        ModelError
            The hyper-parameters contradict each other.
        StateError
            The builder has a config already.
        """
        self._require(NeedsConfig, "config(...)")
        config.validate()
        return cast("ModelBuilder[NeedsWeights]", self._next(_config=config, _step=NeedsWeights))

    def weights(
        self: ModelBuilder[NeedsWeights], weights: Mapping[str, Weights] | PathLikeStr
    ) -> ModelBuilder[Ready]:
        """Take the tensors by name, or the file that holds them.

        Raises
        ------
        StateError
            There is no config yet, or there are weights already.
        """
        self._require(NeedsWeights, "weights(...)")
        return cast("ModelBuilder[Ready]", self._next(_weights=weights, _step=Ready))

    def tokenizer(self, tokenizer: Tokenizer[Any]) -> ModelBuilder[StepT]:
        """Take the tokenizer whose ids the model reads; at any step."""
        return cast("ModelBuilder[StepT]", self._next(_tokenizer=tokenizer))

    def options(self, **options: Any) -> ModelBuilder[StepT]:
        """Take settings of the model's own, such as ``threads`` or ``exact``; at any step."""
        return cast("ModelBuilder[StepT]", self._next(_options={**self._options, **options}))

    def build(self: ModelBuilder[Ready]) -> Model[Loaded]:
        """Return the model.

        Raises
        ------
        StateError
            Config or weights are missing.
        TensorError
            The weights do not go with the config.
        """
        self._require(Ready, "build()")
        config = cast("ModelConfig", self._config)
        return self.assemble(config, self._weights, self._tokenizer, **self._options)

    def assemble(
        self,
        config: ModelConfig,
        weights: Mapping[str, Weights] | PathLikeStr,
        tokenizer: Tokenizer[Any] | None,
        **options: Any,
    ) -> Model[Loaded]:
        """Make the model out of its parts; what a subclass replaces."""
        # Resolved by name at the call, as an entry point is: this floor knows nothing above it.
        from importlib import import_module

        module, _, name = self._assembler.partition(":")
        try:
            assemble: Assembler | None = getattr(import_module(module), name, None)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            assemble = None
        if assemble is None:
            raise UnsupportedError(
                f"nothing here builds models of architecture {config.architecture!r}",
                hint="subclass ModelBuilder and give assemble",
            )
        return assemble(config, weights, tokenizer, **options)
