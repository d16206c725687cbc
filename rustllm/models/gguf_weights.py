"""Where a GGUF file has the weights of a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rustllm.models.weights import Shape, Stored, WeightFiles

if TYPE_CHECKING:
    from rustllm.loaders.gguf import GGUFFile, GGUFTensor

__all__ = ["GGUFWeights"]

# Matrices that may lie in one tensor, row after row: its name, and what it holds.
_FUSED = (("attn_qkv", ("attn_q", "attn_k", "attn_v")), ("ffn_up", ("ffn_gate", "ffn_up")))
_PARTS = {part: (whole, parts) for whole, parts in _FUSED for part in parts}
_NAME = re.compile(
    r"(?P<block>blk\.[0-9]+\.)(?P<part>\w+)\.(?P<kind>weight|bias)(\[(?P<expert>[0-9]+)\])?"
)
# Frequencies may be written for every file of a family and used by none of its plans.
_IGNORED = frozenset(("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"))


class GGUFWeights(WeightFiles):
    """The tensors of a GGUF file.

    Parameters
    ----------
    file : GGUFFile
    vectors : mapping of str to ndarray
        What follows from the metadata.
    """

    def __init__(self, file: GGUFFile, vectors: Mapping[str, Any] | None = None) -> None:
        self._file = file
        self._used: set[str] = set()
        self.vectors = vectors or {}
        self.path = file.path
        self.architecture = file.architecture or ""

    def find(self, name: str, shapes: Mapping[str, Shape]) -> Stored | None:
        tensors = self._file.tensors
        match = _NAME.fullmatch(name)
        if match is not None and match["expert"] is not None:
            stack = tensors.get(f"{match['block']}{match['part']}.{match['kind']}")
            expert = int(match["expert"])
            if stack is None or expert >= stack.shape[0]:
                return None
            return self._part(stack, expert, expert + 1, stack.shape[1:])
        if match is not None and match["part"] in _PARTS:
            fused = self._fused(match["block"], match["part"], match["kind"], shapes)
            if fused is not None:
                return fused
        tensor = tensors.get(name)
        return None if tensor is None else self._part(tensor, 0, tensor.shape[0], tensor.shape)

    def unused(self) -> list[str]:
        return [
            name for name in self._file.tensors if name not in self._used and name not in _IGNORED
        ]

    def give_back(self) -> None:
        self._file.give_back()

    def _fused(
        self, block: str, part: str, kind: str, shapes: Mapping[str, Shape]
    ) -> Stored | None:
        """The rows of one matrix in a tensor that holds several, if there is such a tensor."""
        tensors = self._file.tensors
        whole, parts = _PARTS[part]
        tensor = tensors.get(f"{block}{whole}.{kind}")
        names = [f"{block}{other}.{kind}" for other in parts]
        if tensor is None or any(name not in shapes for name in names):
            return None
        if any(name in tensors for name in names if name != tensor.name):
            return None
        ends = [0]
        for name in names:
            ends.append(ends[-1] + shapes[name][0])
        if ends[-1] != tensor.shape[0]:
            return self._part(tensor, 0, tensor.shape[0], tensor.shape)  # which no shape fits
        at = parts.index(part)
        first, last = ends[at], ends[at + 1]
        return self._part(tensor, first, last, (last - first, *tensor.shape[1:]))

    def _part(self, tensor: GGUFTensor, first: int, last: int, shape: Shape) -> Stored:
        self._used.add(tensor.name)
        unit = tensor.n_bytes // tensor.shape[0]
        return Stored(
            tensor.name,
            self.path,
            shape,
            tensor.type_name,
            lambda: tensor.data[first * unit : last * unit],
            tensor.give_back,
            is_mapped=tensor.is_mapped,
        )
