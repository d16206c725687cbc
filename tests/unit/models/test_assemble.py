"""Models built from arrays in memory, equal to those that are loaded."""

import numpy as np
import pytest

from rustllm import ModelBuilder, ops
from rustllm.errors import ArgumentError, TensorError, UnsupportedError
from rustllm.models.load import architecture
from rustllm.models.weights import shapes_of
from rustllm.testing import ByteTokenizer

from .tiny import tiny_config, tiny_model

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def arrays(config, seed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes_of(architecture(config.architecture)(config)).items():
        values = rng.standard_normal(shape).astype(np.float32) * 0.3
        made[name] = np.abs(values) + 0.5 if len(shape) == 1 else values
    return made


def build(config, weights, **options):
    return ModelBuilder().config(config).weights(weights).options(threads=1, **options).build()


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("exact", [False, True])
def test_arrays_make_the_model_that_packed_weights_make(name, exact):
    config = tiny_config(name)
    model = build(config, arrays(config), exact=exact)
    expected = tiny_model(name, exact=exact)
    got = model.forward(IDS, model.new_state())
    assert np.array_equal(got, expected.forward(IDS, expected.new_state()))


def test_arrays_of_any_strides_and_types_and_quantized_ones():
    config = tiny_config()
    weights = arrays(config)
    expected = build(config, weights, exact=True)
    mixed = {name: np.asfortranarray(value).astype(np.float64) for name, value in weights.items()}
    model = build(config, mixed, exact=True)
    first = model.forward(IDS, model.new_state())
    assert np.array_equal(first, expected.forward(IDS, expected.new_state()))

    name = "blk.0.attn_q.weight"
    blocks = ops.quantize(weights[name], "Q8_0")
    quantized = build(config, {**weights, name: blocks}, exact=True)
    unpacked = build(config, {**weights, name: ops.dequantize(blocks)}, exact=True)
    assert np.allclose(
        quantized.forward(IDS, quantized.new_state()),
        unpacked.forward(IDS, unpacked.new_state()),
        atol=1e-4,
    )


def test_weights_of_a_file_and_a_tokenizer(smollm2_path):
    import rustllm

    loaded = rustllm.load_model(smollm2_path, threads=1)
    built = (
        ModelBuilder()
        .config(loaded.config)
        .tokenizer(loaded.tokenizer)
        .weights(smollm2_path)
        .options(threads=1)
        .build()
    )
    assert built.tokenizer is loaded.tokenizer
    assert np.array_equal(
        built.forward(IDS, built.new_state()), loaded.forward(IDS, loaded.new_state())
    )


def test_what_does_not_fit_is_named():
    config = tiny_config()
    weights = arrays(config)
    name = "blk.1.ffn_up.weight"
    with pytest.raises(TensorError) as caught:
        build(config, {k: v for k, v in weights.items() if k != name})
    assert caught.value.tensor == name
    with pytest.raises(TensorError) as caught:
        build(config, {**weights, "blk.9.more": np.ones(3)})
    assert caught.value.tensor == "blk.9.more"
    with pytest.raises(TensorError, match="shape") as caught:
        build(config, {**weights, name: weights[name].T})
    assert caught.value.tensor == name
    with pytest.raises(TensorError, match="finite"):
        build(config, {**weights, name: np.full_like(weights[name], np.nan)})
    with pytest.raises(TensorError, match="numbers"):
        build(config, {**weights, name: np.full(weights[name].shape, "x")})
    with pytest.raises(ArgumentError, match="no weights"):
        build(config, {})
    with pytest.raises(ArgumentError, match="threads"):
        ModelBuilder().config(config).weights(weights).options(threads=0).build()
    with pytest.raises(UnsupportedError):
        build(tiny_config("no-such"), weights)


def test_it_generates():
    config = tiny_config(n_vocab=257)
    model = (
        ModelBuilder()
        .config(config)
        .weights(arrays(config))
        .tokenizer(ByteTokenizer(["<end>"]))
        .options(threads=1, end_ids=[256])
        .build()
    )
    text = "".join(model.generate("abc", max_tokens=5, temperature=0, seed=1))
    assert text == "".join(model.generate("abc", max_tokens=5, temperature=0, seed=2))
