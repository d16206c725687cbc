"""Every architecture against transformers: the same scores from the same random weights."""

import json

import numpy as np
import pytest

import rustllm
from rustllm._core import dispatch

pytest.importorskip("torch", reason='needs the extra: pip install "rustllm[reference]"')
pytest.importorskip("transformers", reason='needs the extra: pip install "rustllm[reference]"')
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

import torch  # noqa: E402
from reference_models import CASES, N_IDS, logits, make, rounded, save, write_gguf  # noqa: E402

IDS = np.random.default_rng(3).integers(0, 101, N_IDS)
EVERY = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """For each case: its folder, its GGUF file and the scores that transformers gives."""
    made = {}

    def get(case):
        if case not in made:
            home = tmp_path_factory.mktemp(case)
            model = save(make(case), home / "hf")
            write_gguf(model, home / "model.gguf")
            made[case] = home / "hf", home / "model.gguf", logits(model, IDS)
        return made[case]

    return get


def assert_close(got, expected):
    """Within 1e-4 of scores that are a few units large."""
    assert 1.0 < np.abs(expected).max() < 100.0
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


@EVERY
@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_scores_are_those_of_transformers_whole_and_in_pieces(models, case, kind):
    folder, file, expected = models(case)
    model = rustllm.load_model(folder if kind == "folder" else file, threads=2, exact=True)
    whole = model.forward(IDS, model.new_state(), logits="all")
    assert_close(whole, expected)
    state = model.new_state()
    pieces = [model.forward(IDS[:70], state, logits="all")]
    pieces += [model.forward(IDS[i : i + 1], state, logits="all") for i in range(70, 90)]
    twin = state.fork()
    pieces.append(model.forward(IDS[90:], state, logits="all"))
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.array_equal(model.forward(IDS[90:], twin), whole[-1])
    twin.truncate(40)
    assert np.array_equal(model.forward(IDS[40:], twin), whole[-1])


@EVERY
def test_the_bits_depend_on_neither_threads_nor_instructions(models, case):
    folder, _, _ = models(case)
    before = dispatch.current_level()
    for exact in (True, False):
        results = []
        try:
            for level in dispatch.available_levels():
                dispatch.set_level(level)
                for threads in (1, 2, 3):
                    model = rustllm.load_model(folder, threads=threads, exact=exact)
                    state = model.new_state()
                    first = model.forward(IDS[:60], state, logits="all")
                    results.append((first, model.forward(IDS[60:61], state)))
        finally:
            dispatch.set_level(before)
        for result in results:
            assert np.array_equal(result[0], results[0][0])
            assert np.array_equal(result[1], results[0][1])


@EVERY
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_folders_of_several_shards(tmp_path, case, dtype):
    model = save(make(case), tmp_path, getattr(torch, dtype), shard="40KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    ours = rustllm.load_model(tmp_path, threads=2, exact=True)
    assert_close(ours.forward(IDS, ours.new_state(), logits="all"), logits(model, IDS))


@EVERY
def test_half_precision_gguf(tmp_path, case):
    model = rounded(make(case), torch.float16)
    write_gguf(model, tmp_path / "m.gguf", np.float16)
    ours = rustllm.load_model(tmp_path / "m.gguf", threads=2, exact=True)
    assert_close(ours.forward(IDS, ours.new_state(), logits="all"), logits(model, IDS))


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_short_context_takes_the_short_frequencies(tmp_path, kind):
    model = save(make("phi3-long"), tmp_path / "hf")
    write_gguf(model, tmp_path / "m.gguf")
    ours = rustllm.load_model(tmp_path / ("hf" if kind == "folder" else "m.gguf"), exact=True)
    short, long = logits(model, IDS[:60]), logits(model, IDS)[:60]
    assert_close(ours.forward(IDS[:60], ours.new_state(64), logits="all"), short)
    assert_close(ours.forward(IDS[:60], ours.new_state(65), logits="all"), long)
    assert np.abs(short - long).max() > 0.1


@EVERY
def test_a_folder_written_as_gguf_has_the_tensors_that_the_gguf_package_writes(
    models, case, tmp_path
):
    from rustllm.loaders.gguf import GGUFFile
    from rustllm.models.quantize import quantize_model

    folder, file, expected = models(case)
    target = tmp_path / "model.gguf"
    quantize_model(folder, target, "F32", tokenizer=False)
    with GGUFFile(target) as ours, GGUFFile(file) as theirs:
        assert set(ours.tensors) == set(theirs.tensors)
        for name, tensor in theirs.tensors.items():
            assert ours.tensors[name].shape == tensor.shape
            np.testing.assert_allclose(
                ours.tensors[name].dequantize(), tensor.dequantize(), rtol=1e-6, atol=1e-7
            )
    model = rustllm.load_model(target, threads=2, exact=True)
    assert_close(model.forward(IDS, model.new_state(), logits="all"), expected)
