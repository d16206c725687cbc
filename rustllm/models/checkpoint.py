"""What is to be known about an architecture to read it from a folder as training left it.

GGUF's names are the library's own; a :class:`Checkpoint` says what the same weights are called in a
folder of safetensors files, and how they lie there. It is found through the plugin registry under
the kind ``"checkpoint"`` and the folder's ``model_type``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rustllm.models.config import TransformerConfig

if TYPE_CHECKING:
    from rustllm.models.hf_config import HFConfig

__all__ = ["Checkpoint", "Described"]


@dataclass(frozen=True)
class Described:
    """What a ``config.json`` says.

    Parameters
    ----------
    config : TransformerConfig
    vectors : mapping of str to ndarray
        Weights that follow from the configuration instead of lying in a file: frequency factors.
    """

    config: TransformerConfig
    vectors: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """How a folder holds the weights of an architecture.

    Parameters
    ----------
    describe : callable
        From the folder's configuration to `Described`.
    layers : mapping of str to str
        From a weight's name in a block to the folder's name in a layer, both without ``.weight``
        and ``.bias``. Several that share one name lie in one tensor, row after row, in this order.
        ``{}`` stands for the number of an expert.
    base : str
        What all names but that of the head begin with; some folders leave it out.
    layer : str
        What the names in a layer begin with; ``{}`` stands for its number.
    embedding, positions, norm, head : str
        Names outside the layers.
    transposed : bool
        Matrices of layers lie with the inputs as rows.
    queries_by_head : bool
        A matrix of queries, keys and values holds all three of a head together, head after head.
    norms_less_one : bool
        Norms scale by one plus what is written.
    """

    describe: Callable[[HFConfig], Described]
    layers: Mapping[str, str]
    base: str = "model."
    layer: str = "layers.{}."
    embedding: str = "embed_tokens"
    positions: str = ""
    norm: str = "norm"
    head: str = "lm_head"
    transposed: bool = False
    queries_by_head: bool = False
    norms_less_one: bool = False
