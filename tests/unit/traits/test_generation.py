"""Texts being made: what callers may do to scores, what they are told, how a text ends."""

import asyncio
import math
import threading

import numpy as np
import pytest

from rustllm.errors import ArgumentError, CancelledError, ModelError, OutOfRangeError
from rustllm.testing import BigramModel

TEXT = "the cat sat on the mat. the cat ran to the man. "


@pytest.fixture
def model():
    return BigramModel.fit(TEXT)


class Spell:
    """A constraint: the text is one word, then an end token or nothing."""

    def __init__(self, word):
        self.word = word

    def start(self, tokenizer, end_ids):
        word = self.word

        class Matcher:
            def __init__(self):
                self.ids = tokenizer.encode_ordinary(word)

            def mask(self, scores):
                wanted = scores[self.ids[0]]
                scores[:] = -np.inf
                scores[self.ids[0]] = wanted

            def advance(self, id):
                assert id == self.ids.pop(0)
                return not self.ids

        return Matcher()


def test_a_constraint_shapes_the_text_and_ends_it(model):
    one = Spell("zebra")
    for _ in range(2):  # one constraint, many texts
        generation = model.generate("the", constraint=one, seed=1)
        assert generation.text() == "zebra"
        assert (generation.finish_reason, generation.stopped_by) == ("stop", None)


def test_log_probabilities_are_the_models_whatever_a_constraint_does(model):
    generation = model.generate("the ", constraint=Spell("mat"), temperature=0.3, seed=0)
    got = [p for piece in generation for p in piece.logprobs]
    state = model.new_state()
    expected = []
    ids = list(b"the ")
    for id in b"mat":
        row = np.float64(model.forward(ids, state))
        expected.append(row[id] - np.log(np.exp(row - row.max()).sum()) - row.max())
        ids = [id]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_processors_see_prompt_and_text_and_change_scores_in_order(model):
    seen = []

    def forbid_spaces(ids, scores):
        seen.append(bytes(ids))
        scores[ord(" ")] = -np.inf

    def forbid_all_but(ids, scores):
        assert scores[ord(" ")] == -np.inf
        scores[: ord("m")] = scores[127:] = -np.inf

    processors = [forbid_spaces, forbid_all_but]
    generation = model.generate("the", max_tokens=3, logits_processors=processors, seed=4)
    text = generation.text()
    assert all(c >= "m" for c in text)
    assert seen == [b"the" + text.encode()[:i] for i in range(3)]


def test_forbidding_everything_is_an_error(model):
    with pytest.raises(ModelError, match="no token is allowed"):
        model.generate("a", logits_processors=[lambda ids, scores: scores.fill(-np.inf)]).text()
    bias = dict.fromkeys(range(model.config.n_vocab), -math.inf)
    with pytest.raises(ModelError, match="no token is allowed"):
        model.generate("a", temperature=0, logit_bias=bias).text()


def test_bias_turns_a_choice_around(model):
    assert model.generate("x", max_tokens=4, temperature=0, logit_bias={113: 99.0}).text() == "qqqq"
    with pytest.raises(OutOfRangeError, match="logit_bias"):
        model.generate("x", logit_bias={model.config.n_vocab: 1.0})


def test_penalties_count_what_the_prompt_says_within_their_reach(model):
    def first(prompt, **options):
        biased = {"temperature": 0, "logit_bias": {ord("q"): 99.0}, "presence_penalty": 1e6}
        return model.generate(prompt, max_tokens=1, **biased, **options).text()

    assert first("x") == "q"
    assert first("xq") != "q"
    assert first("qx", repeat_last_n=1) == "q"
    assert first("qx", repeat_last_n=2) != "q"


@pytest.mark.parametrize(
    "options",
    [
        {"typical_p": 0},
        {"repeat_penalty": 0},
        {"frequency_penalty": math.inf},
        {"presence_penalty": math.nan},
        {"repeat_last_n": -2},
        {"seed": -1},
        {"top_logprobs": -1},
        {"logit_bias": {1: math.nan}},
        {"logit_bias": {1: math.inf}},
    ],
)
def test_settings_out_of_range_are_refused_before_any_work(model, options):
    with pytest.raises(ArgumentError):
        model.generate("the", **options)


def test_reasons_of_ending(model):
    def reason(**options):
        generation = model.generate("the c", seed=1, **options)
        generation.text()
        return generation.finish_reason, generation.stopped_by

    assert reason(max_tokens=2) == ("length", None)
    assert reason(max_tokens=0) == ("length", None)
    assert reason(temperature=0, stop=["zz", "a"]) == ("stop", "a")
    assert reason(temperature=0, stop_ids=[ord("a")]) == ("stop", ord("a"))
    assert reason(state=model.new_state(7)) == ("context", None)
    assert reason(callback=lambda piece: False) == ("callback", None)


def test_a_callback_sees_every_piece(model):
    seen = []
    pieces = list(model.generate("the", max_tokens=9, seed=2, callback=seen.append))
    assert seen == pieces
    assert len(pieces) > 1


def test_top_log_probabilities_are_the_likeliest_of_each_row(model):
    pieces = list(model.generate("the", max_tokens=5, seed=5, top_logprobs=3))
    state = model.new_state()
    ids = list(b"the")
    for piece in pieces:
        row = np.float64(model.forward(ids, state))
        logprobs = row - row.max() - np.log(np.exp(row - row.max()).sum())
        order = np.argsort(-logprobs, kind="stable")[:3]
        assert [id for id, _ in piece.top_logprobs[0]] == order.tolist()
        np.testing.assert_allclose(
            [p for _, p in piece.top_logprobs[0]], logprobs[order], atol=1e-5
        )
        ids = list(piece.ids)


def test_pieces_never_hold_half_a_character():
    model = BigramModel.fit("añb€c😀d")
    pieces = list(model.generate("a", max_tokens=12, temperature=0))
    assert "".join(pieces) == "ñb€c😀d"[: len("".join(pieces))]
    assert [len(piece.ids) for piece in pieces if piece in "ñ€😀"] == [2, 3, 4]


def test_async_iteration_gives_the_same_pieces(model):
    async def read():
        return [piece async for piece in model.generate("the", max_tokens=8, seed=3)]

    assert asyncio.run(read()) == list(model.generate("the", max_tokens=8, seed=3))


def test_cancelling_from_another_thread_ends_the_wait(model):
    reached = threading.Event()
    go_on = threading.Event()

    def wait(ids, scores):
        reached.set()
        go_on.wait(10)

    generation = model.generate("the", max_tokens=50, logits_processors=[wait])
    errors = []

    def read():
        try:
            generation.text()
        except CancelledError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    reached.wait(10)
    generation.cancel()
    go_on.set()
    thread.join(10)
    assert len(errors) == 1
    assert list(generation) == []


def test_closing_ends_a_text_where_it_is(model):
    generation = model.generate("the", max_tokens=50, seed=1)
    next(generation)
    generation.close()
    generation.close()
    assert list(generation) == []
    assert generation.finish_reason == "closed"
