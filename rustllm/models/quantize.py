"""Write a model, from a GGUF file or a folder, as a GGUF file in another block type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm._core import quant
from rustllm.errors import ArgumentError, UnsupportedError, convert_errors
from rustllm.loaders.gguf_quantize import (
    Piece,
    QuantizeReport,
    SourceTensor,
    file_type,
    quantize_file,
    write_quantized,
)
from rustllm.models.gguf_metadata import config_metadata, tokenizer_metadata, yarn_keys
from rustllm.models.hf_config import HFConfig, read_json
from rustllm.models.weights import (
    Shape,
    Stored,
    WeightFiles,
    expert_name,
    find_weights,
    shapes_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rustllm.models.config import TransformerConfig

__all__ = ["quantize_model"]

_QKV = ("attn_q", "attn_k", "attn_v")
# Matrices that GGUF files of an architecture hold as one, row after row.
_FUSED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "gpt2": {"attn_qkv": _QKV},
    "gptneox": {"attn_qkv": _QKV},
    "phi3": {"attn_qkv": _QKV, "ffn_up": ("ffn_gate", "ffn_up")},
}


@convert_errors()
def quantize_model(
    source: str | PathLike[str],
    target: str | PathLike[str],
    type_name: str,
    *,
    pure: bool = False,
    tokenizer: bool = True,
    num_threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> QuantizeReport:
    """Write a model as a GGUF file in another block type.

    Parameters
    ----------
    source : path
        A GGUF file; or a folder with ``config.json``, ``tokenizer.json`` and safetensors files,
        whole or in shards.
    target : path
        Written under a temporary name and renamed when whole; an existing file is replaced.
    type_name : str
        ``"Q4_0"``, ``"Q4_K"``, ``"F16"``...: any block type of floats.
    pure : bool
        Quantize the head to `type_name` as well, instead of Q6_K at least.
    tokenizer : bool
        Of a folder: write its tokenizer and chat template too.
    num_threads : int, optional
        By default, the processors that this process may use.
    progress : function, optional
        Called after each tensor as ``progress(name, bytes_done, bytes)``, counted in the source.

    Returns
    -------
    QuantizeReport

    Raises
    ------
    ArgumentError
        The type cannot be quantized to, or both paths are the same file.
    FileMissingError, FileAccessError, FileFormatError
        A file cannot be read or written, breaks a rule of its format, or holds a value that is not
        finite or too large.
    ModelError, TensorError
        Of a folder: the configuration cannot be, or weights are missing, of the wrong shape or
        left over.
    UnsupportedError
        The architecture is not implemented, or a GGUF file cannot say what the folder does.

    Notes
    -----
    Vectors (norms, biases) are float32. Rows of queries and keys of Llama models are put in the
    order that GGUF files have. What was written means the same model, which is checked before. O(n)
    time; memory is bounded by one tensor of the folder and a few megabytes.

    Examples
    --------
    >>> from rustllm.models.quantize import quantize_model
    >>> report = quantize_model("SmolLM2-135M", "smollm2-q4_k.gguf", "Q4_K")  # doctest: +SKIP
    >>> report.types  # doctest: +SKIP
    {'Q6_K': 1, 'F32': 61, 'Q4_K': 210}
    """
    path = Path(source)
    if not (path.is_dir() or path.name.endswith(".safetensors.index.json")):
        return quantize_file(
            source, target, type_name, pure=pure, num_threads=num_threads, progress=progress
        )
    from rustllm.models.load import architecture, open_source

    file_type(type_name)
    if Path(target).is_dir():
        raise ArgumentError("the target is a folder", path=str(target), hint="name a file")
    model = open_source(path)
    try:
        config = model.config
        shapes = shapes_of(architecture(config.architecture, path)(config))
        files = model.weights()
        found = find_weights(files, shapes)
        tensors = _tensors(config, shapes, found)
        metadata, vectors = _metadata(path, config, tensors, files)
        tensors += vectors
        if tokenizer:
            metadata.update(tokenizer_metadata(model))
        return write_quantized(
            target,
            metadata,
            tensors,
            type_name,
            pure=pure,
            num_threads=num_threads,
            progress=progress,
            source_bytes=sum(tensor.n_bytes for tensor in tensors),
        )
    finally:
        model.close()


def _metadata(
    path: Path, config: TransformerConfig, tensors: list[SourceTensor], files: WeightFiles
) -> tuple[dict[str, Any], list[SourceTensor]]:
    """Metadata, and the vectors that do not follow from it and must be tensors."""
    folder = path if path.is_dir() else path.parent
    hf = HFConfig(folder / "config.json", read_json(folder / "config.json"))
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    scaling = yarn_keys(hf, config)
    if scaling:
        try:
            return config_metadata(
                config, shapes, files.path, scaling=scaling, vectors=files.vectors
            ), []
        except UnsupportedError:  # a variant without a key: the factors themselves
            pass
    vectors = [_vector(name, values, files.path) for name, values in files.vectors.items()]
    shapes.update({vector.name: vector.shape for vector in vectors})
    return config_metadata(config, shapes, files.path), vectors


def _tensors(
    config: TransformerConfig, shapes: Mapping[str, Shape], found: Mapping[str, Stored]
) -> list[SourceTensor]:
    """The tensors of the new file, in the order in which the plan uses them."""
    tensors = []
    done: set[str] = set()
    for name in found:
        if name in done:
            continue
        as_one, members = _together(config, name, found)
        done.update(members)
        stored = [found[member] for member in members]
        shape = stored[0].shape
        if "[" in name:  # experts, one after the other
            shape = (len(members), *shape)
        else:
            shape = (sum(each.shape[0] for each in stored), *shape[1:])
        kinds = {each.type_name for each in stored}
        kind = kinds.pop() if len(kinds) == 1 else "F32"
        pieces = [
            Piece(partial(_blocks, config, member, each, kind), each.give_back)
            for member, each in zip(members, stored)
        ]
        tensors.append(SourceTensor(as_one, shape, kind, pieces, stored[0].path, None, "F32"))
    return tensors


def _together(
    config: TransformerConfig, name: str, found: Mapping[str, Stored]
) -> tuple[str, list[str]]:
    """The tensor that a weight is part of in a GGUF file, and all that are, in order."""
    if "[" in name:
        stack = name.partition("[")[0]
        return stack, [expert_name(stack, expert) for expert in range(config.n_experts)]
    block, _, rest = name.rpartition(".")[0].rpartition(".")
    kind = name.rpartition(".")[2]
    for whole, parts in _FUSED.get(config.architecture, {}).items():
        members = [f"{block}.{part}.{kind}" for part in parts]
        if rest in parts and all(member in found for member in members):
            return f"{block}.{whole}.{kind}", members
    return name, [name]


def _blocks(
    config: TransformerConfig, name: str, stored: Stored, type_name: str
) -> NDArray[np.uint8]:
    """The bytes of a weight as the file will have them, but for their type."""
    data = np.asarray(stored.read())
    if stored.type_name != type_name:  # one of several that differ: float32
        data = quant.dequantize(data, stored.type_name).reshape(-1).view(np.uint8)
    part = name.split(".")[-2]
    if config.rope_halves and part in ("attn_q", "attn_k"):
        n_heads = config.n_heads if part == "attn_q" else config.n_kv_heads
        data = _in_pairs(data, n_heads, config.head_dim, config.n_rot)
    return data


def _in_pairs(
    data: NDArray[np.uint8], n_heads: int, head_dim: int, n_rot: int
) -> NDArray[np.uint8]:
    """Rows of heads whose dimensions i and i + n/2 rotate, so that 2i and 2i + 1 do."""
    rows = data.reshape(n_heads, head_dim, -1)
    turned = rows[:, :n_rot].reshape(n_heads, 2, n_rot // 2, -1).swapaxes(1, 2)
    rows = np.concatenate([turned.reshape(n_heads, n_rot, -1), rows[:, n_rot:]], axis=1)
    return np.ascontiguousarray(rows).reshape(-1)


def _vector(name: str, values: Any, path: str) -> SourceTensor:
    data = np.ascontiguousarray(values, np.float32)
    piece = Piece(lambda: data.reshape(-1).view(np.uint8), lambda: None)
    return SourceTensor(name, data.shape, "F32", [piece], path)
