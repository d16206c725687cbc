"""Guessing ahead and going on from kept states never change a text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm.errors import ArgumentError, ContextLengthError
from rustllm.testing import BigramConfig, BigramModel
from rustllm.traits import PrefixCache
from rustllm.traits.speculation import PromptLookup

TEXT = "the cat sat on the mat. the cat ran to the man. "


@pytest.fixture
def model():
    return BigramModel.fit(TEXT)


class Wrong:
    """A draft model that guesses well now and then."""

    def __new__(cls, seed):
        return BigramModel.fit("".join(np.random.default_rng(seed).permutation(list(TEXT))))


OPTIONS = [
    {"temperature": 0},
    {"seed": 1},
    {"seed": 2, "temperature": 1.3, "top_p": 0.9},
    {"seed": 3, "top_k": 4, "min_p": 0.05},
    {"seed": 4, "repeat_penalty": 1.5, "frequency_penalty": 0.2},
    {"seed": 5, "stop": ["sat", "ran"]},
    {"seed": 6, "stop_ids": [ord(".")]},
    {"seed": 7, "logit_bias": {ord("e"): 3.0}, "top_logprobs": 2},
    {"seed": 8, "typical_p": 0.8, "context": 30},
    {"seed": 9, "max_tokens": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_draft_never_changes_the_text(model, options, n):
    options = {"max_tokens": 60, **options}
    plain = model.generate("the cat ", **options)
    expected = list(plain)
    for draft in ("lookup", model, Wrong(0), Wrong(1)):
        guessed = model.generate("the cat ", **options, draft=draft, draft_tokens=n)
        got = list(guessed)
        assert got == expected
        assert [p.ids for p in got] == [p.ids for p in expected]
        assert [p.logprobs for p in got] == [p.logprobs for p in expected]
        assert [p.top_logprobs for p in got] == [p.top_logprobs for p in expected]
        assert guessed.finish_reason == plain.finish_reason
        assert list(guessed.state.tokens) == list(plain.state.tokens)
        assert 0 <= guessed.n_right <= guessed.n_guessed


def test_good_guesses_save_passes(model):
    passes = []
    forward = model.forward
    model.forward = lambda *args, **kw: passes.append(1) or forward(*args, **kw)
    model.generate("the cat ", temperature=0, max_tokens=60).text()
    plain = len(passes)
    passes.clear()
    model.generate("the cat ", temperature=0, max_tokens=60, draft="lookup").text()
    assert len(passes) < plain / 3


def test_draws_with_a_draft_follow_the_models_distribution():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (5, 5)).astype(np.float32)
    model = BigramModel(BigramConfig(5), counts, _Digits())
    draft = BigramModel(BigramConfig(5), counts[::-1].copy(), _Digits())
    seen = np.zeros((5, 5))
    for seed in range(3000):
        generation = model.generate(
            [0], max_tokens=4, temperature=1.0, seed=seed, draft=draft, draft_tokens=3
        )
        generation.text()
        before = 0
        for id in generation.ids:
            seen[before, id] += 1
            before = id
    share = (counts + 1e-6) / (counts + 1e-6).sum(1, keepdims=True)
    total = seen.sum(1, keepdims=True)
    chi = ((seen - total * share) ** 2 / (total * share)).sum()
    assert chi < 52.6  # 20 degrees of freedom, one in ten thousand


class _Digits:
    """A tokenizer of five letters, as far as a generation needs one."""

    n_vocab = 5

    def stream_decoder(self):
        class Decoder:
            def push(self, id):
                return "abcde"[id]

            def finish(self):
                return ""

        return Decoder()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 9))
def test_looking_up_finds_what_followed_the_longest_latest_match(ids, n):
    looked_up = PromptLookup(longest=4, shortest=2)
    got = None
    for end in range(1, len(ids) + 1):  # as a text grows
        got = looked_up.guess(ids[:end], n, [])
    expected = []
    for length in (4, 3, 2):
        places = [
            end
            for end in range(length, len(ids))
            if length < len(ids) and ids[end - length : end] == ids[-length:]
        ]
        if places:
            text = list(ids)
            while len(text) < places[-1] + n:
                text.append(text[len(text) - len(ids) + places[-1]])
            expected = text[places[-1] : places[-1] + n]
            break
    assert got == expected


def test_drafts_that_cannot_be(model):
    other = BigramModel(BigramConfig(5), np.ones((5, 5), np.float32), _Digits())
    for wrong in ("look", 3, other):
        with pytest.raises(ArgumentError, match="draft|vocabulary"):
            model.generate("a", draft=wrong)
    with pytest.raises(ArgumentError, match="draft_tokens"):
        model.generate("a", draft="lookup", draft_tokens=0)


# ---- going on from kept states -------------------------------------------------------------------


def test_a_kept_state_reads_only_what_is_new(model):
    state = model.new_state()
    conversation = "the cat"
    for more in (" sat", " on the mat", " and ran"):
        conversation += more
        fresh = model.generate(conversation, max_tokens=6, seed=1)
        kept = model.generate(conversation, max_tokens=6, seed=1, state=state, reuse_prefix=True)
        text = fresh.text()
        before = state.position
        assert kept.text() == text
        assert list(state.tokens) == list(fresh.state.tokens)
        assert kept.n_reused == min(before, len(conversation) - len(more))
        conversation += text


def test_a_prompt_that_is_all_there_is_read_from_its_last_token(model):
    state = model.new_state()
    model.forward(b"the cat sat", state)
    again = model.generate("the cat", max_tokens=3, seed=2, state=state, reuse_prefix=True)
    assert again.text() == model.generate("the cat", max_tokens=3, seed=2).text()
    assert again.n_reused == 6


def test_a_cache_finds_the_longest_beginning_and_stays_in_bounds(model):
    cache = PrefixCache(max_tokens=60)

    def ask(prompt, **options):
        options = {"max_tokens": 2, "temperature": 0, **options}
        generation = model.generate(prompt, **options, prefix_cache=cache)
        assert generation.text() == model.generate(prompt, **options).text()
        return generation.n_reused

    assert ask("the cat sat") == 0
    assert ask("the cat ran") == 8
    assert ask("the cat rang") == 11
    assert ask("a dog") == 0
    assert ask("the cat rang") == 11
    for i in range(20):
        ask(f"{i} other prompts")
        assert cache.n_tokens <= 60
    assert ask("the cat rang") == 0
    other = BigramModel.fit(TEXT)
    assert other.generate("the cat rang", max_tokens=1, prefix_cache=cache).n_reused == 0
    ask("x" * 100)
    assert cache.n_tokens <= 60
    cache.clear()
    assert len(cache) == 0


def test_one_of_state_and_cache(model):
    with pytest.raises(ArgumentError, match="give one"):
        model.generate("a", state=model.new_state(), prefix_cache=PrefixCache())
    with pytest.raises(ArgumentError, match="give one"):
        model.generate("a", state=model.new_state(), context=20)
    with pytest.raises(ArgumentError):
        PrefixCache(max_tokens=0)


# ---- the end of the context ----------------------------------------------------------------------


def test_a_full_context_ends_the_text_unless_it_may_shift(model):
    generation = model.generate("the cat", context=20, max_tokens=100, seed=1)
    assert len(generation.text()) == 14
    assert generation.finish_reason == "context"
    shifted = model.generate("the cat", context=20, max_tokens=100, seed=1, context_shift=4)
    text = shifted.text()
    assert (len(shifted.ids), shifted.finish_reason) == (100, "length")
    assert len(text) == 100
    # A bigram model sees one token back: shifting cannot change what it says.
    assert text == model.generate("the cat", max_tokens=100, seed=1).text()


def test_a_shift_goes_on_as_from_a_prompt_of_what_it_keeps():
    class Recorder(BigramModel):
        fed = []

        def forward(self, ids, state, logits="last"):
            self.fed.append((state.position, list(ids)))
            return super().forward(ids, state, logits)

    model = Recorder.fit(TEXT)
    generation = model.generate("the cat", context=12, max_tokens=9, temperature=0, context_shift=3)
    text = b"the cat" + bytes(generation.ids)
    generation.text()
    text = b"the cat" + bytes(generation.ids)
    shifts = [(at, ids) for at, ids in model.fed[1:] if len(ids) > 1]
    assert shifts == [(3, list(text[13 - 4 : 13]))]


@pytest.mark.parametrize("keep", [-1, 19, 50])
def test_a_shift_that_leaves_no_room_is_refused(model, keep):
    with pytest.raises(ArgumentError, match="context_shift"):
        model.generate("the cat", context=20, context_shift=keep)
    with pytest.raises(ContextLengthError):
        model.generate("the cat" * 9, context=20, context_shift=2)
