"""Where a folder of safetensors files has the weights of a plan, and how they lie there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.models.weights import Shape, Stored, WeightFiles

if TYPE_CHECKING:
    from rustllm.loaders.safetensors import SafetensorsFolder, SafetensorsTensor
    from rustllm.models.checkpoint import Checkpoint
    from rustllm.models.config import TransformerConfig

__all__ = ["FolderWeights"]

_IN_LAYER = re.compile(
    r"blk\.(?P<layer>[0-9]+)\.(?P<part>\w+)\.(?P<kind>weight|bias)(\[(?P<expert>[0-9]+)\])?"
)
# Constants that older folders keep beside the weights: masks and frequencies.
_CONSTANT = re.compile(r".*(\.attn|\.attention)\.(masked_)?bias|.*\.rotary_emb\.inv_freq")


class FolderWeights(WeightFiles):
    """The tensors of a folder, under the names of an architecture's `Checkpoint`.

    Parameters
    ----------
    folder : SafetensorsFolder
    checkpoint : Checkpoint
    config : TransformerConfig
    vectors : mapping of str to ndarray
        What follows from the configuration.
    """

    def __init__(
        self,
        folder: SafetensorsFolder,
        checkpoint: Checkpoint,
        config: TransformerConfig,
        vectors: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._checkpoint = checkpoint
        self._config = config
        self._used: set[str] = set()
        base = checkpoint.base
        self._base = base if any(name.startswith(base) for name in folder.info) else ""
        self.vectors = vectors
        self.path = folder.path
        self.architecture = config.architecture

    def find(self, name: str, shapes: Mapping[str, Shape]) -> Stored | None:
        match = _IN_LAYER.fullmatch(name)
        if match is None:
            tensor = self._folder.info.get(self._outside(name))
            return None if tensor is None else self._whole(tensor, name)
        layers, part = self._checkpoint.layers, match["part"]
        if part not in layers:
            return None
        expert = match["expert"]
        stem = layers[part] if expert is None else layers[part].format(expert)
        prefix = self._base + self._checkpoint.layer.format(match["layer"])
        tensor = self._folder.info.get(f"{prefix}{stem}.{match['kind']}")
        if tensor is None:
            return None
        sharing = [other for other, its in layers.items() if its == layers[part]]
        if len(sharing) > 1:
            names = [f"blk.{match['layer']}.{other}.{match['kind']}" for other in sharing]
            sizes = [shapes[other][0] for other in names if other in shapes]
            return self._fused(tensor, sizes, sharing.index(part))
        if self._checkpoint.transposed and len(tensor.shape) == 2:
            return self._copied(tensor, tensor.shape[::-1], lambda array: array.T)
        return self._whole(tensor, name)

    def unused(self) -> list[str]:
        head = f"{self._checkpoint.head}.weight"
        return [
            name
            for name in self._folder.info
            if name not in self._used
            and not _CONSTANT.fullmatch(name)
            and not (self._config.tied and name == head)  # a second copy of the embedding
        ]

    def _outside(self, name: str) -> str:
        """The folder's name of a weight that is in no layer."""
        stem, _, kind = name.rpartition(".")
        checkpoint = self._checkpoint
        if stem == "output":
            return f"{checkpoint.head}.{kind}"
        known = {
            "token_embd": checkpoint.embedding,
            "position_embd": checkpoint.positions,
            "output_norm": checkpoint.norm,
        }
        return f"{self._base}{known.get(stem, stem)}.{kind}"

    def _whole(self, tensor: SafetensorsTensor, name: str) -> Stored:
        if self._checkpoint.norms_less_one and name.endswith("norm.weight"):
            return self._plus_one(tensor)
        return self._stored(tensor, tensor.shape, lambda: tensor.data)

    def _plus_one(self, tensor: SafetensorsTensor) -> Stored:
        def read() -> Any:
            return (tensor.to_float32() + np.float32(1)).view(np.uint8)

        self._used.add(tensor.name)
        return Stored(
            tensor.name, self._path(tensor), tensor.shape, "F32", read, tensor.give_back, True
        )

    def _fused(self, tensor: SafetensorsTensor, sizes: list[int], at: int) -> Stored:
        """The rows of one of several weights that lie in one tensor."""
        transposed = self._checkpoint.transposed and len(tensor.shape) == 2
        shape = tensor.shape[::-1] if transposed else tensor.shape
        if not shape or sum(sizes) != shape[0]:
            return self._stored(tensor, shape, lambda: tensor.data)  # which no shape fits
        first, n = sum(sizes[:at]), sizes[at]
        shape = (n, *shape[1:])
        if self._checkpoint.queries_by_head:
            n_heads = self._config.n_heads

            def of_heads(array: Any) -> Any:
                by_head = array.reshape(n_heads, len(sizes), -1, *array.shape[1:])
                return by_head[:, at].reshape(shape)

            return self._copied(tensor, shape, of_heads)
        if transposed:
            return self._copied(tensor, shape, lambda array: array[:, first : first + n].T)
        unit = tensor.n_bytes // tensor.shape[0]
        return self._stored(tensor, shape, lambda: tensor.data[first * unit : (first + n) * unit])

    def _copied(
        self, tensor: SafetensorsTensor, shape: Shape, arrange: Callable[[Any], Any]
    ) -> Stored:
        def read() -> Any:
            array = np.ascontiguousarray(arrange(tensor.array()))
            return array.reshape(-1).view(np.uint8)

        return self._stored(tensor, shape, read, True)

    def _stored(
        self,
        tensor: SafetensorsTensor,
        shape: Shape,
        read: Callable[[], Any],
        is_copy: bool = False,
    ) -> Stored:
        self._used.add(tensor.name)
        return Stored(
            tensor.name,
            self._path(tensor),
            shape,
            tensor.dtype_name,
            read,
            tensor.give_back,
            is_copy,
            tensor.is_mapped and not is_copy,
        )

    def _path(self, tensor: SafetensorsTensor) -> str:
        return tensor._file.path
