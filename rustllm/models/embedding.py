"""Vectors of texts: the rows that a transformer holds after its last layer and norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm import ops
from rustllm._core.engine import Engine, Workspace
from rustllm._core.kv_cache import KVCache
from rustllm.errors import (
    ArgumentError,
    ContextLengthError,
    ModelError,
    OutOfMemoryError,
    UnsupportedError,
)
from rustllm.models.plan import Norm, Plan

if TYPE_CHECKING:
    from rustllm.models.transformer import Transformer
    from rustllm.types import EmbeddingArray

__all__ = ["HiddenRows", "embed", "hidden_plan"]

POOLINGS = ("mean", "last", "first", "cls", "none")
# Tokens whose keys and values are held at once.
GROUP = 4096


def hidden_plan(plan: Plan) -> tuple[Plan, Norm]:
    """Return the part of `plan` up to its last layer, and the norm that follows.

    What the caller gets in the place of logits are the rows that the norm would be given.

    Raises
    ------
    UnsupportedError
        The plan does not end as those of language models do.
    """
    kinds = [op.kind for op in plan]
    if kinds.count("gather") != 1 or "prepare" not in kinds[kinds.index("gather") :]:
        raise UnsupportedError("the model's plan has no last norm to take embeddings from")
    end = kinds.index("gather")
    norm = plan.ops[end + kinds[end:].index("prepare")].params["norm"]
    source = plan.ops[end].ins[0]
    if norm is None:
        raise UnsupportedError("the model's plan has no last norm to take embeddings from")
    part = Plan(
        n_vocab=plan.widths[source],
        n_layers=plan.n_layers,
        n_kv_heads=plan.n_kv_heads,
        head_dim=plan.head_dim,
    )
    part.ops = list(plan.ops[:end])
    used = {name for op in part for name in (*op.ins, *op.outs)}
    part.widths = {name: width for name, width in plan.widths.items() if name in used}
    part.prepared = {name: width for name, width in plan.prepared.items() if name in used}
    part.gather(source, "logits")
    return part, norm


class HiddenRows:
    """Runs a model without its output layer.

    Parameters
    ----------
    plan : Plan
        Of the whole model.
    weights : mapping
        As the whole model's engine has them; nothing is copied.
    exact : bool

    Notes
    -----
    Immutable, so threads may share it.
    """

    def __init__(self, plan: Plan, weights: Mapping[str, Any], exact: bool) -> None:
        part, norm = hidden_plan(plan)
        self._engine = Engine(part, weights, exact=exact)
        self._norm = norm
        self._weight = weights[norm.weight]
        self._bias = None if norm.bias is None else weights[norm.bias]
        self.width = part.n_vocab

    def read(
        self, tokens: Sequence[Any], wanted: Sequence[int], caches: Sequence[KVCache], threads: int
    ) -> list[EmbeddingArray]:
        """Return the normed rows of the last `wanted` tokens of each sequence.

        Parameters
        ----------
        tokens : sequence of int32 arrays
        wanted : sequence of int
        caches : sequence of KVCache
            Empty ones with room.
        threads : int
        """
        from rustllm.models.transformer import _next_call

        rows = np.empty((sum(wanted), self.width), np.float32)
        done = [0] * len(tokens)
        workspace = Workspace()
        while call := _next_call(list(tokens), done, list(wanted)):
            kept = np.concatenate([part.kept for part in call])
            places = np.concatenate([part.places for part in call])
            found = np.empty((len(places), self.width), np.float32)
            sequences = [(caches[part.index], part.tokens) for part in call]
            self._engine.forward(workspace, sequences, kept, found, threads, None)
            rows[places] = found
        eps = self._norm.eps
        if self._norm.kind == "layer":
            ops.layer_norm(rows, self._weight, self._bias, eps=eps, out=rows, threads=threads)
        else:
            ops.rms_norm(rows, self._weight, eps=eps, out=rows, threads=threads)
        ends = np.cumsum(wanted).tolist()
        return [rows[end - n : end] for end, n in zip(ends, wanted, strict=True)]


def embed(
    model: Transformer, text: str | Sequence[str], pooling: str, normalize: bool
) -> EmbeddingArray | list[EmbeddingArray]:
    """See :meth:`Transformer.embed`."""
    if pooling not in POOLINGS:
        names = ", ".join(POOLINGS)
        raise ArgumentError(f"pooling must be one of {names}, not {pooling!r}", key="pooling")
    texts = [text] if isinstance(text, str) else list(text)
    tokens = [_tokens(model, one, index) for index, one in enumerate(texts)]
    if pooling in ("first", "cls"):
        # What the first token holds does not depend on those after it.
        tokens = [ids[:1] for ids in tokens]
    vectors: list[EmbeddingArray] = []
    group: list[Any] = []
    for ids in tokens:
        if group and sum(map(len, group)) + len(ids) > GROUP:
            vectors += _group(model, group, pooling, normalize)
            group = []
        group.append(ids)
    if group:
        vectors += _group(model, group, pooling, normalize)
    if isinstance(text, str):
        return vectors[0]
    if pooling == "none":
        return vectors
    return np.stack(vectors) if vectors else np.empty((0, model.config.n_embd), np.float32)


def _tokens(model: Transformer, text: str, index: int) -> Any:
    if not isinstance(text, str):
        raise ArgumentError(f"text {index} is {type(text).__name__}, not a string", index=index)
    ids = model._with_bos(list(model.tokenizer.encode(text, disallowed_special=())))
    if not ids:
        raise ArgumentError(f"text {index} has no tokens", index=index)
    if len(ids) > model.config.n_ctx:
        raise ContextLengthError(
            f"text {index} has {len(ids)} tokens, the model was trained for {model.config.n_ctx}",
            hint="cut the text into parts",
            needed=len(ids),
            context=model.config.n_ctx,
        )
    return model._tokens(ids)


def _group(
    model: Transformer, tokens: list[Any], pooling: str, normalize: bool
) -> list[EmbeddingArray]:
    config = model.config
    wanted = [1 if pooling == "last" else len(ids) for ids in tokens]
    try:
        caches = [
            KVCache(config.n_layers, config.n_kv_heads, config.head_dim, len(ids), model.kv_dtype)
            for ids in tokens
        ]
        parts = model._hidden.read(tokens, wanted, caches, model.threads)
    except MemoryError as error:
        raise OutOfMemoryError(str(error)) from error
    vectors = []
    for rows in parts:
        if not np.isfinite(rows).all():
            raise ModelError(
                "an embedding is not finite",
                path=model.path,
                hint="a weight is not finite, or the activations overflow",
            )
        vector = rows if pooling == "none" else rows.mean(axis=0, dtype=np.float64)
        if normalize:
            length = np.linalg.norm(vector.astype(np.float64), axis=-1, keepdims=True)
            vector = vector / np.where(length > 0, length, 1)
        vectors.append(vector.astype(np.float32))
    return vectors
