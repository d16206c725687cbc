"""The traits as protocols: what code may ask for without asking for a base class.

Each is the part of a trait that the library itself calls. An object that has the methods fits,
whatever it inherits from; ``isinstance`` looks for the names only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rustllm.types import Logits, TokenArray

__all__ = [
    "ConfigLike",
    "ModelLike",
    "PluginLike",
    "StateLike",
    "SupportsDecode",
    "SupportsEncode",
    "SupportsGenerate",
    "TokenLike",
    "TokenizerLike",
]


@runtime_checkable
class TokenLike(Protocol):
    """An id and the bytes that it stands for."""

    @property
    def id(self) -> int: ...
    def to_bytes(self) -> bytes: ...


@runtime_checkable
class SupportsEncode(Protocol):
    """Text to ids."""

    def encode(self, text: str, /) -> list[int]: ...


@runtime_checkable
class SupportsDecode(Protocol):
    """Ids to text."""

    def decode(self, ids: Iterable[int], /) -> str: ...


@runtime_checkable
class TokenizerLike(SupportsEncode, SupportsDecode, Protocol):
    """What code that only needs some tokenizer calls: `rustllm.Tokenizer` and others' fit."""

    @property
    def n_vocab(self) -> int: ...
    def encode_ordinary(self, text: str, /) -> list[int]: ...
    def encode_to_numpy(self, text: str, /) -> TokenArray: ...
    def decode_bytes(self, ids: Iterable[int], /) -> bytes: ...


@runtime_checkable
class ConfigLike(Protocol):
    """Hyper-parameters that can be checked and written out."""

    @property
    def architecture(self) -> str: ...
    def validate(self) -> None: ...
    def to_dict(self) -> Mapping[str, Any]: ...


@runtime_checkable
class StateLike(Protocol):
    """What a model remembers."""

    @property
    def position(self) -> int: ...
    @property
    def context(self) -> int: ...
    def reset(self) -> None: ...
    def truncate(self, n: int, /) -> None: ...


@runtime_checkable
class SupportsGenerate(Protocol):
    """A prompt to pieces of text."""

    def generate(self, prompt: str, /) -> Iterator[str]: ...


@runtime_checkable
class ModelLike(SupportsGenerate, Protocol):
    """What code that runs some language model calls."""

    @property
    def config(self) -> ConfigLike: ...
    @property
    def tokenizer(self) -> TokenizerLike: ...
    def new_state(self, context: int | None = None, /) -> Any: ...
    def forward(self, ids: Iterable[int], state: Any, /) -> Logits: ...


@runtime_checkable
class PluginLike(Protocol):
    """What the plugin manager calls."""

    def setup(self, context: Any, /) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
