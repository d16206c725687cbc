"""Where a model comes from: its configuration, weights, tokenizer and what ends a generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rustllm.models.config import TransformerConfig
    from rustllm.models.weights import WeightFiles

__all__ = ["ModelSource"]


class ModelSource(ABC):
    """An opened file or folder of one model.

    Attributes
    ----------
    config : TransformerConfig
        Checked.
    metadata : mapping of str to value
        Under GGUF's keys: at least what chat templates need.
    """

    config: TransformerConfig
    metadata: Mapping[str, Any]

    @abstractmethod
    def weights(self) -> WeightFiles:
        """Where the weights are."""

    @abstractmethod
    def tokenizer(self) -> Any:
        """Build the tokenizer."""

    @abstractmethod
    def end_ids(self) -> Iterable[int]:
        """Ids that end a generation."""

    @abstractmethod
    def bos_id(self) -> int | None:
        """Id that every prompt begins with, if there is one."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; views that were handed out stay valid."""
