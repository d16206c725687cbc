"""Small random models of the real architectures, built from nothing."""

import numpy as np

from rustllm._core.linear import PackedMatrix, pack
from rustllm.models.config import TransformerConfig
from rustllm.models.load import architecture
from rustllm.models.transformer import Transformer
from rustllm.models.weights import shapes_of


def tiny_config(name="llama", **changes):
    values = {
        "n_vocab": 83,
        "n_ctx": 400,
        "n_embd": 64,
        "n_layers": 2 if name == "llama" else 7,
        "n_ff": 96,
        "n_heads": 6,
        "n_kv_heads": 2,
        "head_dim": 24,
        "n_rot": 24,
        "norm_eps": 1e-5,
        "rope_base": 10000.0,
        "window": 0 if name == "llama" else 37,
    }
    return TransformerConfig(name, **{**values, **changes})


def random_weights(plan, seed=0, type_id=0):
    """Weights of a plan; matrices in float32 (type 0) or as random Q8_0 blocks (type 8)."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes_of(plan).items():
        values = rng.standard_normal(shape).astype(np.float32) * 0.3
        if len(shape) == 1:
            weights[name] = np.abs(values) + 0.5
        elif type_id == 8 and shape[1] % 32 == 0:
            blocks = np.zeros((shape[0] * shape[1] // 32, 34), np.uint8)
            blocks[:, 2:] = rng.integers(0, 256, (len(blocks), 32), dtype=np.uint8)
            blocks[:, :2] = np.full((len(blocks), 1), 0.004, np.float16).view(np.uint8)
            weights[name] = PackedMatrix(8, *shape, blocks.tobytes())
        else:
            weights[name] = PackedMatrix(0, *shape, values.tobytes())
    pack([w for w in weights.values() if isinstance(w, PackedMatrix)])
    return weights


def tiny_model(
    name="llama", *, exact=False, kv_dtype=None, threads=1, type_id=0, seed=0, **changes
):
    config = tiny_config(name, **changes)
    plan = architecture(name)(config)
    return Transformer(
        config,
        plan,
        random_weights(plan, seed, type_id),
        threads=threads,
        exact=exact,
        kv_dtype=kv_dtype,
    )
