"""Models of parts in memory: what `ModelBuilder` builds for the known architectures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm.errors import ArgumentError, TensorError
from rustllm.models.config import TransformerConfig
from rustllm.models.kv_dtype import checked_kv_dtype
from rustllm.models.load import architecture, open_source
from rustllm.models.weights import Shape, Stored, WeightFiles, read_weights

if TYPE_CHECKING:
    from rustllm.models.transformer import Transformer
    from rustllm.traits import ModelConfig, Tokenizer
    from rustllm.types import PathLikeStr

__all__ = ["assemble"]


class _ArrayWeights(WeightFiles):
    """Weights given as arrays, under the names of plans; experts as one array of all."""

    vectors: Mapping[str, Any] = {}
    path = "<memory>"

    def __init__(self, arrays: Mapping[str, Any], config: TransformerConfig) -> None:
        self._arrays = arrays
        self._used: set[str] = set()
        self.architecture = config.architecture

    def find(self, name: str, shapes: Mapping[str, Shape]) -> Stored | None:
        stem, _, expert = name.partition("[")
        array = self._arrays.get(stem)
        if array is None:
            return None
        self._used.add(stem)
        if hasattr(array, "type_id") and not expert:  # quantized blocks
            return self._stored(stem, tuple(array.shape), array.type, array.data, is_copy=False)
        values = np.asarray(array)
        if values.dtype.kind not in "fiu":
            raise TensorError(f"weights are numbers, not {values.dtype}", tensor=stem)
        if expert:
            number = int(expert.removesuffix("]"))
            if number >= len(values):
                return None
            values = values[number]
        flat = np.ascontiguousarray(values, np.float32)
        return self._stored(stem, values.shape, "F32", flat.view(np.uint8).reshape(-1), True)

    def unused(self) -> list[str]:
        return sorted(set(self._arrays) - self._used)

    def _stored(self, name: str, shape: Shape, type_name: str, data: Any, is_copy: bool) -> Stored:
        return Stored(name, self.path, shape, type_name, lambda: data, _nothing, is_copy)


def _nothing() -> None:
    pass


def assemble(
    config: ModelConfig,
    weights: Mapping[str, Any] | PathLikeStr,
    tokenizer: Tokenizer[Any] | None = None,
    *,
    threads: int | None = None,
    exact: bool = False,
    kv_dtype: str | None = None,
    end_ids: Iterable[int] = (),
    bos_id: int | None = None,
) -> Transformer:
    """Make a model of a configuration and its weights.

    Parameters
    ----------
    config : TransformerConfig
    weights : mapping of str to array, or path
        Arrays of numbers or :class:`rustllm.ops.QuantizedArray`, under the names that
        :func:`rustllm.models.weights.shapes_of` gives for the plan (GGUF's names), rows first; or a
        model file or folder to take them from.
    tokenizer : Tokenizer, optional
    threads : int, optional
        By default all cores.
    exact : bool, optional
    kv_dtype : str, optional
        As for :func:`rustllm.load_model`.
    end_ids : iterable of int, optional
        Ids that end a generation.
    bos_id : int, optional
        Id that every prompt begins with.

    Raises
    ------
    UnsupportedError
        The architecture is not known.
    TensorError
        A weight is missing, surplus, of the wrong shape, or holds a value that is not finite.
    ArgumentError
        `threads` is out of range, or there are no weights.

    Notes
    -----
    Matrices are copied into the kernels' order; the arrays are not kept.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import ModelBuilder
    >>> from rustllm.models.config import TransformerConfig
    >>> from rustllm.models.load import architecture
    >>> from rustllm.models.weights import shapes_of
    >>> config = TransformerConfig(
    ...     "llama", n_vocab=50, n_ctx=64, n_embd=32, n_layers=1, n_ff=64, n_heads=2,
    ...     n_kv_heads=1, head_dim=16, n_rot=16, norm_eps=1e-5, rope_base=10000.0)
    >>> shapes = shapes_of(architecture("llama")(config))
    >>> weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    >>> model = ModelBuilder().config(config).weights(weights).options(threads=1).build()
    >>> model.forward([1, 2, 3], model.new_state()).shape
    (50,)
    """
    from rustllm._core.threads import available_threads
    from rustllm.models.transformer import Transformer

    if not isinstance(config, TransformerConfig):
        # a configuration of another kind names its architecture, which has no plan here
        architecture(config.architecture)
        raise ArgumentError(f"a TransformerConfig is needed, not {type(config).__name__}")
    threads = available_threads() if threads is None else threads
    if not 1 <= threads <= 256:
        raise ArgumentError(f"threads must be 1 to 256, not {threads}")
    if kv_dtype is not None:
        checked_kv_dtype(kv_dtype)
    config.validate()
    plan = architecture(config.architecture)(config)
    path = None
    if isinstance(weights, Mapping):
        if not weights:
            raise ArgumentError("there are no weights")
        packed = read_weights(_ArrayWeights(weights, config), plan, threads=threads)
    else:
        path = Path(weights)
        source = open_source(path)
        try:
            packed = read_weights(source.weights(), plan, threads=threads)
        except BaseException:
            source.close()
            raise
    return Transformer(
        config,
        plan,
        packed,
        threads=threads,
        exact=exact,
        kv_dtype=kv_dtype,
        tokenizer=None if tokenizer is None else lambda: tokenizer,
        end_ids=end_ids,
        bos_id=bos_id,
        path=path,
    )
