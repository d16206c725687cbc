"""What a model gets for free, and what the phases and the builder's order refuse at run time."""

import pickle

import numpy as np
import pytest

from rustllm.errors import (
    ArgumentError,
    ConfigError,
    ContextLengthError,
    ModelError,
    StateError,
    TensorError,
    UnsupportedError,
)
from rustllm.testing import BigramBuilder, BigramConfig, BigramModel
from rustllm.traits import Closed, Loaded, Model, ModelBuilder, ModelState, Piece, Plugin

TEXT = "the cat sat on the mat. the cat ran to the man. "


@pytest.fixture
def model():
    return BigramModel.fit(TEXT)


def test_greedy_generation_follows_the_most_frequent_neighbour(model):
    ids = model.tokenizer.encode("t")
    state = model.new_state()
    expected = ""
    for _ in range(5):
        best = int(model.forward(ids, state).argmax())
        ids = [best]
        expected += chr(best)
    assert "".join(model.generate("t", max_tokens=5, temperature=0)) == expected


def test_one_seed_gives_one_text(model):
    texts = {"".join(model.generate("the", max_tokens=40, seed=7)) for _ in range(3)}
    assert len(texts) == 1
    assert len({"".join(model.generate("the", max_tokens=40, seed=s)) for s in range(6)}) > 1


def test_pieces_carry_ids_and_logprobs(model):
    pieces = list(model.generate("the", max_tokens=6, seed=1))
    ids = [id for piece in pieces for id in piece.ids]
    assert model.tokenizer.decode(ids) == "".join(pieces)
    assert all(p <= 0 for piece in pieces for p in piece.logprobs)
    assert pickle.loads(pickle.dumps(pieces[0])).ids == pieces[0].ids


@pytest.mark.parametrize("stop", ["at", ["xyz", " s"], "e", "t sat"])
def test_no_part_of_a_stop_text_is_given_out(model, stop):
    whole = "".join(model.generate("the c", max_tokens=60, temperature=0))
    stopped = "".join(model.generate("the c", max_tokens=60, temperature=0, stop=stop))
    ends = [whole.find(s) for s in ([stop] if isinstance(stop, str) else stop)]
    ends = [at for at in ends if at >= 0]
    assert stopped == whole[: min(ends)] if ends else stopped == whole


def test_cuts_keep_only_the_likeliest(model):
    for cut in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        # min_p=1 keeps all tokens that tie with the best, so look at a row without ties
        cut_text = "".join(model.generate("m", max_tokens=1, seed=3, temperature=2.0, **cut))
        assert cut_text == "".join(model.generate("m", max_tokens=1, temperature=0))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0},
        {"min_p": 2},
        {"max_tokens": -1},
        {"stop": [""]},
    ],
)
def test_settings_out_of_range_are_refused_before_any_work(model, options):
    with pytest.raises(ArgumentError):
        model.generate("the", **options)


def test_a_prompt_longer_than_the_context_is_refused(model):
    with pytest.raises(ContextLengthError) as caught:
        model.generate("the cat", state=model.new_state(3))
    assert (caught.value.needed, caught.value.context) == (7, 3)


def test_generation_ends_where_the_context_does(model):
    state = model.new_state(5)
    assert len("".join(model.generate("abc", max_tokens=50, state=state, seed=0))) == 3


def test_what_a_model_lacks_it_refuses_by_name(model):
    with pytest.raises(UnsupportedError, match="BigramModel gives no embeddings"):
        model.embed("x")
    with pytest.raises(UnsupportedError, match="chat template"):
        model.chat([{"role": "user", "content": "hi"}])


def test_a_closed_model_refuses_work_and_closing_twice_is_harmless(model):
    assert model.phase is Loaded
    closed = model.close()
    assert closed is model.close()
    assert closed.phase is Closed
    with pytest.raises(StateError, match="Loaded"):
        model.generate("the")


def test_builder_steps_out_of_order_raise():
    start = BigramBuilder()
    config = BigramConfig(2)
    weights = {"counts": np.ones((2, 2), np.float32)}
    with pytest.raises(StateError, match="too early"):
        start.weights(weights)
    with pytest.raises(StateError, match="too early"):
        start.build()
    needs_weights = start.config(config)
    with pytest.raises(StateError, match="too late"):
        needs_weights.config(config)
    ready = needs_weights.weights(weights)
    with pytest.raises(StateError, match="too late"):
        ready.weights(weights)
    assert ready.build().config == config


def test_a_builder_step_leaves_the_builder_it_came_from_as_it_was():
    start = BigramBuilder().config(BigramConfig(2))
    good = start.weights({"counts": np.ones((2, 2), np.float32)})
    bad = start.weights({"counts": np.ones((3, 2), np.float32)})
    with pytest.raises(TensorError):
        bad.build()
    assert good.build().phase is Loaded


def test_a_builder_checks_the_config_at_once():
    with pytest.raises(ModelError):
        BigramBuilder().config(BigramConfig(0))


def test_an_unknown_architecture_is_refused():
    builder = ModelBuilder().config(BigramConfig(2)).weights({"counts": np.ones((2, 2))})
    with pytest.raises((UnsupportedError, ModelError), match="bigram"):
        builder.build()


def test_a_builder_takes_options_and_a_tokenizer_at_any_step():
    seen = {}

    class Builder(BigramBuilder):
        def assemble(self, config, weights, tokenizer, **options):
            seen.update(options, tokenizer=tokenizer)
            return super().assemble(config, weights, tokenizer)

    tokenizer = BigramModel.fit(TEXT).tokenizer
    first = Builder().options(threads=1, exact=True).config(BigramConfig(256))
    second = first.tokenizer(tokenizer).options(threads=2)
    second.weights({"counts": np.ones((256, 256), np.float32)}).build()
    assert seen == {"threads": 2, "exact": True, "tokenizer": tokenizer}


def test_several_sequences_are_read_as_each_alone(model):
    states = [model.new_state(), model.new_state()]
    last = model.forward_batch([[1, 2], [3]], states)
    expected = [model.forward(ids, model.new_state()) for ids in ([1, 2], [3])]
    np.testing.assert_array_equal(last, expected)
    every = model.forward_batch([[1, 2], [3]], [model.new_state(), model.new_state()], "all")
    assert [rows.shape for rows in every] == [(2, last.shape[1]), (1, last.shape[1])]
    with pytest.raises(ArgumentError, match="2 sequences and 1 states"):
        model.forward_batch([[1], [2]], states[:1])
    with pytest.raises(ArgumentError):
        model.forward_batch([], [])


def test_what_an_implementation_leaves_out_is_refused_by_name(model, tmp_path):
    state = model.new_state()
    refused = [
        lambda: Model.n_parameters.fget(model),
        lambda: ModelState.tokens.fget(state),
        lambda: ModelState.save(state, tmp_path / "s"),
        lambda: ModelState.load(state, tmp_path / "s"),
    ]
    for call in refused:
        with pytest.raises(UnsupportedError, match="Bigram"):
            call()


def test_configs_go_to_plain_values_and_back():
    config = BigramConfig(300, n_ctx=7)
    assert BigramConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="n_layers") as caught:
        BigramConfig.from_dict({"n_vocab": 3, "n_layers": 1})
    assert caught.value.key == "n_layers"
    with pytest.raises(ConfigError, match="n_vocab"):
        BigramConfig.from_dict({})
    with pytest.raises(ModelError):
        BigramConfig.from_dict({"n_vocab": -1})


def test_piece_is_a_string():
    assert Piece("ab", (1,), (-0.5,)) + "c" == "abc"


def test_a_plugin_needs_setup_only():
    class Quiet(Plugin):
        def setup(self, context):
            pass

    Quiet().start()
    Quiet().stop()
    with pytest.raises(TypeError):
        Plugin()
