"""The attention module against the formula and PyTorch, its files, and what it refuses."""

import numpy as np
import pytest

from rustllm import SelfAttention, ops
from rustllm.errors import ArgumentError, FileFormatError, ModelError, TensorError
from rustllm.models.self_attention import AttentionConfig
from rustllm.testing import ConfigConformance, ModelConformance


class TestConfig(ConfigConformance):
    def make(self):
        return AttentionConfig(16, 4, n_kv_heads=2)


class TestModel(ModelConformance):
    def make(self):
        return SelfAttention(16, 4)


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def reference(layer, x):
    c, w = layer.config, layer.weights
    n = len(x)

    def heads(name, count):
        y = x.astype(float) @ w[f"{name}.weight"].T.astype(float)
        if c.bias:
            y = y + w[f"{name}.bias"]
        return y.reshape(n, count, c.head_dim).swapaxes(0, 1)

    q, k, v = heads("q", c.n_heads), heads("k", c.n_kv_heads), heads("v", c.n_kv_heads)
    out = []
    for h in range(c.n_heads):
        g = h // (c.n_heads // c.n_kv_heads)
        s = q[h] @ k[g].T / np.sqrt(c.head_dim)
        if c.causal:
            s = np.where(np.tri(n, dtype=bool), s, -np.inf)
        e = np.exp(s - s.max(1, keepdims=True))
        out.append(e / e.sum(1, keepdims=True) @ v[g])
    joined = np.concatenate(out, axis=1)
    return joined @ w["output.weight"].T.astype(float) + (w["output.bias"] if c.bias else 0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n_heads", "n_kv_heads", "head_dim"), [(4, 4, 8), (6, 2, 5), (1, 1, 32)])
def test_it_is_the_formula(causal, n_heads, n_kv_heads, head_dim):
    layer = SelfAttention(
        32, n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim, causal=causal, seed=3
    )
    x = rows(40, 32)
    np.testing.assert_allclose(layer(x), reference(layer, x), atol=1e-4)
    batch = np.stack([x, x[::-1]])
    assert np.array_equal(layer(batch)[0], layer(x))
    assert np.array_equal(layer(x, threads=1), layer(x, threads=3))


def test_it_is_pytorchs_module():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.MultiheadAttention(24, 4, bias=True, batch_first=True)
    state = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    weights = {"output.weight": state["out_proj.weight"], "output.bias": state["out_proj.bias"]}
    for i, name in enumerate("qkv"):
        part = slice(24 * i, 24 * i + 24)
        weights[f"{name}.weight"] = state["in_proj_weight"][part]
        weights[f"{name}.bias"] = state["in_proj_bias"][part]
    layer = SelfAttention(24, 4, causal=False, bias=True, weights=weights)
    x = rows(2, 9, 24)
    with torch.no_grad():
        tensor = torch.from_numpy(x)
        want = theirs(tensor, tensor, tensor, need_weights=False)[0].numpy()
    np.testing.assert_allclose(layer(x), want, atol=1e-5)


def test_rotation_depends_on_distances_only_and_windows_forget():
    layer = SelfAttention(16, 2, rope_base=100.0, causal=True, seed=1)
    x = rows(12, 16)
    np.testing.assert_allclose(layer(x), layer(x, positions=np.arange(12) + 50), atol=1e-4)
    assert not np.allclose(layer(x), SelfAttention(16, 2, seed=1)(x), atol=1e-3)
    short = SelfAttention(16, 2, window=3, seed=1)
    assert np.allclose(short(x)[-1], short(x[-3:])[-1], atol=1e-5)
    seen = np.tri(12, dtype=bool) & ~np.tri(12, k=-3, dtype=bool)
    full = SelfAttention(16, 2, causal=False, seed=1)
    np.testing.assert_allclose(full(x, mask=seen), short(x), atol=1e-5)


def test_it_goes_to_a_file_and_back_also_with_quantized_weights(tmp_path):
    layer = SelfAttention(32, 4, n_kv_heads=2, bias=True, rope_base=1e4, seed=5)
    x = rows(7, 32)
    layer.save(tmp_path / "a")
    again = SelfAttention.load(tmp_path / "a")
    assert again.config == layer.config and np.array_equal(again(x), layer(x))
    small = {
        name: ops.quantize(w, "Q8_0") if w.ndim == 2 else w for name, w in layer.weights.items()
    }
    packed = SelfAttention(32, 4, n_kv_heads=2, bias=True, rope_base=1e4, weights=small)
    assert 0 < np.abs(packed(x) - layer(x)).max() < 0.1
    packed.save(tmp_path / "b")
    assert np.array_equal(SelfAttention.load(tmp_path / "b")(x), packed(x))
    (tmp_path / "c").write_bytes((tmp_path / "b").read_bytes()[:-3])
    with pytest.raises(FileFormatError):
        SelfAttention.load(tmp_path / "c")
    from rustllm import LinearModel

    LinearModel().fit([[0.0], [1.0]], [0, 1]).save(tmp_path / "d")
    with pytest.raises(FileFormatError, match="no self-attention"):
        SelfAttention.load(tmp_path / "d")


def test_what_does_not_fit_is_said():
    for options in (
        {"n_heads": 0},
        {"n_heads": 4, "n_kv_heads": 3},
        {"n_heads": 4, "n_kv_heads": 0},
        {"n_heads": 4, "head_dim": 5, "rope_base": 10.0},
        {"n_heads": 2, "window": -1},
    ):
        with pytest.raises(ModelError):
            SelfAttention(16, **options)
    weights = SelfAttention(16, 2).weights
    with pytest.raises(TensorError, match=r"k\.weight"):
        SelfAttention(16, 2, weights={n: w for n, w in weights.items() if n != "k.weight"})
    with pytest.raises(TensorError, match="no weight 'x'"):
        SelfAttention(16, 2, weights={**weights, "x": rows(2)})
    with pytest.raises(TensorError, match=r"\[16, 16\]"):
        SelfAttention(16, 2, weights={**weights, "v.weight": rows(16, 8)})
    with pytest.raises(TensorError, match="finite"):
        SelfAttention(16, 2, weights={**weights, "q.weight": np.full((16, 16), np.nan)})
    layer = SelfAttention(16, 2)
    with pytest.raises(ArgumentError, match="n_tokens"):
        layer(rows(4, 15))
    with pytest.raises(ValueError, match="read-only"):
        layer.weights["q.weight"][0, 0] = 1
    assert layer.n_parameters == 4 * 256 and "2 heads of 8" in repr(layer)
