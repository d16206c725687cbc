"""What every `rustllm.Model`, language model, config and builder has to do."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from rustllm.errors import (
    ArgumentError,
    ConfigError,
    ContextLengthError,
    OutOfRangeError,
    RustLLMError,
    StateError,
)
from rustllm.testing.conformance.base import Conformance, expect, generate_all
from rustllm.traits import (
    Closed,
    LanguageModel,
    Loaded,
    Model,
    ModelBuilder,
    ModelConfig,
    ModelLike,
    NeedsConfig,
    NeedsWeights,
    Ready,
)

__all__ = [
    "BuilderConformance",
    "ConfigConformance",
    "LanguageModelConformance",
    "ModelConformance",
]


class ConfigConformance(Conformance[ModelConfig]):
    """Checks for hyper-parameters."""

    def test_it_goes_to_plain_values_and_back(self) -> None:
        config = self.make()
        config.validate()
        values = json.loads(json.dumps(config.to_dict()))
        assert type(config).from_dict(values) == config
        assert isinstance(config.architecture, str)

    def test_unknown_names_are_refused(self) -> None:
        config = self.make()
        values = {**config.to_dict(), "no_such_parameter": 1}
        error = expect(ConfigError, type(config).from_dict, values)
        assert error.key == "no_such_parameter"

    def test_it_cannot_be_changed(self) -> None:
        config = self.make()
        expect((AttributeError, TypeError), setattr, config, "architecture", "other")
        assert hash(config) == hash(self.make())


class ModelConformance(Conformance[Model[Loaded]]):
    """Checks for any model. `make` returns one that the check may close."""

    def test_it_has_a_config_and_is_loaded(self) -> None:
        with self.make() as model:
            assert isinstance(model, Model)
            assert isinstance(model.config, ModelConfig)
            assert model.phase is Loaded
            model.require(Loaded)

    def test_once_closed_it_says_so_and_closing_again_is_harmless(self) -> None:
        model = self.make()
        closed = model.close()
        assert closed.phase is Closed
        assert model.close() is closed
        expect(StateError, model.require, Loaded)


class LanguageModelConformance(ModelConformance):
    """Checks for language models.

    Attributes
    ----------
    prompt : str
        A text of at least six tokens.
    tolerance : float
        Largest difference of logits between a prompt fed whole and in pieces; 0 asks for the same
        bits.
    """

    prompt = "The quick brown fox jumps over the lazy dog."
    tolerance = 0.0

    @abstractmethod
    def make(self) -> LanguageModel[Loaded, Any, Any]: ...

    def same(self, a: Any, b: Any) -> None:
        """Assert that two arrays of logits agree."""
        assert a.shape == b.shape
        assert np.abs(a.astype(np.float64) - b).max(initial=0.0) <= self.tolerance

    def ids(self, model: LanguageModel[Loaded, Any, Any]) -> list[int]:
        """Return the ids of the prompt."""
        ids = model.tokenizer.encode(self.prompt)
        assert len(ids) >= 6, "the prompt is too short for the checks"
        return ids

    def test_it_fits_the_protocol(self) -> None:
        with self.make() as model:
            assert isinstance(model, LanguageModel)
            assert isinstance(model, ModelLike)
            assert model.config.n_vocab >= 1

    def test_logits_have_a_row_for_each_token_and_the_last_is_the_last(self) -> None:
        with self.make() as model:
            ids = self.ids(model)
            rows = model.forward(ids, model.new_state(64), logits="all")
            last = model.forward(ids, model.new_state(64))
            assert rows.shape == (len(ids), model.config.n_vocab)
            assert rows.dtype == last.dtype == np.float32
            assert np.isfinite(rows).all()
            self.same(last, rows[-1])

    def test_a_prompt_in_pieces_gives_what_the_whole_gives(self) -> None:
        with self.make() as model:
            ids = self.ids(model)
            whole = model.forward(ids, model.new_state(64), logits="all")
            for cut in (1, 3):
                state = model.new_state(64)
                parts = [
                    model.forward(ids[i : i + cut], state, logits="all")
                    for i in range(0, len(ids), cut)
                ]
                self.same(np.concatenate(parts), whole)
                assert state.position == len(ids)

    def test_a_state_can_be_cut_back_forked_and_reset(self) -> None:
        with self.make() as model:
            ids = self.ids(model)
            state = model.new_state(64)
            assert state.position == 0
            assert state.context >= 64
            expected = model.forward(ids, state)
            state.truncate(len(ids) - 2)
            assert state.position == len(ids) - 2
            twin = state.fork()
            self.same(model.forward(ids[-2:], state), expected)
            assert twin.position == len(ids) - 2
            model.forward(ids[:3], state)
            self.same(model.forward(ids[-2:], twin), expected)
            state.reset()
            assert state.position == 0
            self.same(model.forward(ids, state), expected)
            expect(OutOfRangeError, state.truncate, len(ids) + 1)
            expect((OutOfRangeError, ArgumentError), state.truncate, -1)

    def test_a_call_that_fails_leaves_the_state_as_it_was(self) -> None:
        with self.make() as model:
            ids = self.ids(model)
            state = model.new_state(8)
            too_many = [ids[i % len(ids)] for i in range(state.context - 3)]
            before = model.forward(ids[:4], state).copy()
            forward: Any = model.forward
            expect(ContextLengthError, forward, too_many, state)
            for id in (model.config.n_vocab, 2**31, -1):
                expect((OutOfRangeError, ArgumentError), forward, [ids[0], id], state)
            expect(ArgumentError, forward, [], state)
            expect(ArgumentError, forward, ids[:1], state, logits="some")
            assert state.position == 4
            state.truncate(3)
            self.same(model.forward(ids[3:4], state), before)

    def test_one_seed_gives_one_text_and_the_pieces_know_their_ids(self) -> None:
        with self.make() as model:
            first = list(model.generate(self.prompt, max_tokens=6, seed=3))
            again = list(model.generate(self.prompt, max_tokens=6, seed=3))
            assert first == again
            ids = [id for piece in first for id in piece.ids]
            assert len(ids) <= 6
            assert all(0 <= id < model.config.n_vocab for id in ids)
            assert all(len(p.ids) == len(p.logprobs) for p in first)
            assert all(lp <= 1e-6 for p in first for lp in p.logprobs)
            assert list(model.generate(self.prompt, max_tokens=0)) == []

    def test_greedy_generation_takes_the_largest_logit(self) -> None:
        with self.make() as model:
            ids = self.ids(model)
            pieces = list(model.generate(ids, max_tokens=4, temperature=0))
            got = [id for piece in pieces for id in piece.ids]
            state = model.new_state(len(ids) + 8)
            logits = model.forward(ids, state)
            for id in got:
                assert logits[id] == logits.max()
                logits = model.forward([id], state)

    def test_a_stop_text_is_not_given_out(self) -> None:
        with self.make() as model:
            whole = "".join(model.generate(self.prompt, max_tokens=8, temperature=0))
            if len(whole) < 3:
                return
            stop = whole[1:3]
            cut = "".join(model.generate(self.prompt, max_tokens=8, temperature=0, stop=stop))
            assert cut == whole[: whole.index(stop)]

    def test_settings_out_of_range_are_refused(self) -> None:
        with self.make() as model:
            for options in ({"temperature": -1.0}, {"top_k": -1}, {"top_p": 1.5}, {"min_p": -0.1}):
                expect(ArgumentError, generate_all, model, self.prompt, max_tokens=1, **options)

    def test_a_closed_model_refuses_to_work(self) -> None:
        model = self.make()
        ids = self.ids(model)
        state = model.new_state(64)
        model.close()
        expect(StateError, model.forward, ids, state)
        expect(StateError, generate_all, model, self.prompt, max_tokens=1)

    def test_threads_with_a_state_each_get_what_one_gets(self) -> None:
        with self.make() as model:
            ids = self.ids(model)
            expected = model.forward(ids, model.new_state(64))
            got: list[Any] = []

            def work() -> None:
                got.append(model.forward(ids, model.new_state(64)))

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(got) == 4
            for logits in got:
                self.same(logits, expected)


class BuilderConformance(Conformance[ModelBuilder[NeedsConfig]]):
    """Checks for builders; `config` and `weights` give parts that go together."""

    @abstractmethod
    def config(self) -> ModelConfig:
        """Return a config."""

    @abstractmethod
    def weights(self) -> Mapping[str, Any]:
        """Return the tensors that go with it."""

    def test_the_steps_in_order_give_a_model(self) -> None:
        builder = self.make()
        assert builder.step is NeedsConfig
        second = builder.config(self.config())
        assert second.step is NeedsWeights
        third = second.weights(self.weights())
        assert third.step is Ready
        with third.build() as model:
            assert model.phase is Loaded
            assert model.config == self.config()
        with third.build() as again:  # a builder can be used more than once
            assert again.phase is Loaded

    def test_the_steps_out_of_order_are_refused(self) -> None:
        builder: Any = self.make()
        expect(StateError, builder.build)
        expect(StateError, builder.weights, self.weights())
        second = builder.config(self.config())
        expect(StateError, second.build)
        expect(StateError, second.config, self.config())
        third = second.weights(self.weights())
        expect(StateError, third.config, self.config())
        expect(StateError, third.weights, self.weights())

    def test_a_missing_tensor_is_an_error_and_the_builder_stays_usable(self) -> None:
        second = self.make().config(self.config())
        missing = dict(self.weights())
        missing.pop(next(iter(missing)))
        expect(RustLLMError, lambda: second.weights(missing).build())
        second.weights(self.weights()).build().close()
