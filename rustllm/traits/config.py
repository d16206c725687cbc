"""What a model's hyper-parameters are: named, checked, and written out and read back whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from rustllm.errors import ConfigError

__all__ = ["LanguageModelConfig", "ModelConfig"]


class ModelConfig(ABC):
    """Hyper-parameters of a model, immutable.

    Meant for frozen dataclasses: annotate the fields and give `validate`. `to_dict` and `from_dict`
    then turn them into plain values and back, refusing unknown and missing names.

    Attributes
    ----------
    architecture : str
        Name of the architecture, as GGUF's ``general.architecture`` has it.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from rustllm.errors import ModelError
    >>> from rustllm.traits import ModelConfig
    >>> @dataclass(frozen=True)
    ... class LinearConfig(ModelConfig):
    ...     n_in: int
    ...     n_out: int
    ...     architecture: str = "linear"
    ...     def validate(self):
    ...         if self.n_in < 1 or self.n_out < 1:
    ...             raise ModelError("sizes must be positive")
    >>> LinearConfig.from_dict(LinearConfig(3, 2).to_dict()) == LinearConfig(3, 2)
    True
    """

    architecture: str

    @abstractmethod
    def validate(self) -> None:
        """Raise ModelError when the hyper-parameters contradict each other."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name; nested configs become dictionaries."""
        return {
            name: value.to_dict() if isinstance(value, ModelConfig) else value
            for name, value in ((name, getattr(self, name)) for name in _field_names(type(self)))
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from its fields by name, and validate it.

        Raises
        ------
        ConfigError
            A name is unknown or a field without default is missing; ``key`` is the name.
        ModelError
            From `validate`.
        """
        names = _field_names(cls)
        for name in values:
            if name not in names:
                raise ConfigError(
                    f"{cls.__name__} has no field {name!r}",
                    key=name,
                    hint=f"fields: {', '.join(names)}",
                )
        for name, required in names.items():
            if required and name not in values:
                raise ConfigError(f"{cls.__name__} needs the field {name!r}", key=name)
        config = cls(**values)
        config.validate()
        return config


class LanguageModelConfig(ModelConfig):
    """Hyper-parameters that every language model has, under GGUF's names.

    Attributes
    ----------
    n_vocab : int
        Rows of the embedding table.
    n_ctx : int
        Tokens of context the model was trained for.
    n_embd : int
        Width of the hidden vectors.
    """

    n_vocab: int
    n_ctx: int
    n_embd: int


def _field_names(cls: type[ModelConfig]) -> dict[str, bool]:
    """Map each field of a dataclass to whether it must be given."""
    import dataclasses

    if not dataclasses.is_dataclass(cls):
        raise NotImplementedError(
            f"{cls.__name__} is no dataclass, so it has to define to_dict and from_dict itself"
        )
    return {
        field.name: field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        for field in dataclasses.fields(cls)
        if field.init
    }
