"""Generation on the engine: together or alone, guessed or not, with any number of threads."""

import asyncio
import time

import numpy as np
import pytest

from rustllm.errors import CancelledError
from rustllm.testing import ByteTokenizer
from rustllm.traits import PrefixCache

from .tiny import tiny_model

SETTINGS = [
    {"temperature": 0},
    {"seed": 1},
    {"seed": 2, "top_p": 0.9},
    {"seed": 3, "top_k": 10, "repeat_penalty": 1.2},
    {"seed": 4, "min_p": 0.1, "draft": "lookup"},
    {"temperature": 0, "draft": "lookup"},
    {"seed": 5, "typical_p": 0.7},
    {"seed": 6, "frequency_penalty": 0.3, "max_tokens": 70},
]
LENGTHS = [1, 3, 17, 130, 300, 40, 128, 7]


def model_of(name="llama", **changes):
    model = tiny_model(name, n_vocab=256, **changes)
    model._tokenizer = ByteTokenizer()
    return model


def prompts():
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, n).tolist() for n in LENGTHS]


def ids_and_logprobs(generation):
    pieces = list(generation)
    return generation.ids, [p for piece in pieces for p in piece.logprobs]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("kind", [{}, {"exact": True}, {"type_id": 8}], ids=str)
def test_texts_made_together_are_those_made_alone(name, kind):
    model = model_of(name, **kind)
    alone = [
        ids_and_logprobs(model.generate(prompt, **{"max_tokens": 25, **own}))
        for prompt, own in zip(prompts(), SETTINGS, strict=True)
    ]
    for threads, places in ((1, 8), (2, 3), (3, 8)):
        model._threads = threads
        batch = model.generate_batch(
            [{"prompt": p, **own} for p, own in zip(prompts(), SETTINGS, strict=True)],
            max_sequences=places,
            max_tokens=25,
        )
        logprobs = {}
        for index, piece in batch:
            logprobs.setdefault(index, []).extend(piece.logprobs)
        for index, (ids, expected) in enumerate(alone):
            assert batch.generations[index].ids == ids
            assert logprobs[index] == expected


@pytest.mark.parametrize("own", SETTINGS, ids=str)
def test_drafts_and_kept_states_do_not_change_a_text(own):
    model, small = model_of(), model_of(n_layers=1, seed=4)
    own = {"max_tokens": 40, **own}
    own.pop("draft", None)
    cache = PrefixCache()
    for prompt in prompts()[:5]:
        plain = model.generate(prompt, **own)
        expected = ids_and_logprobs(plain)
        for extra in (
            {"draft": "lookup"},
            {"draft": small, "draft_tokens": 3},
            {"draft": model},
            {"prefix_cache": cache},
            {"prefix_cache": cache},
        ):
            generation = model.generate(prompt, **own, **extra)
            assert ids_and_logprobs(generation) == expected
            assert list(generation.state.tokens) == list(plain.state.tokens)
        assert generation.n_reused == len(prompt) - 1


def test_a_model_that_guesses_for_itself_is_nearly_always_right():
    model = model_of()
    for own in ({"temperature": 0}, {"seed": 1}):
        generation = model.generate([1, 2, 3], max_tokens=60, draft=model, **own)
        generation.text()
        assert generation.n_right == generation.n_guessed > 30


def test_long_prompts_do_not_hold_up_a_batch():
    model = model_of(n_ctx=4000)
    batch = model.generate_batch(
        [[1, 2, 3], np.random.default_rng(0).integers(0, 256, 2000).tolist()],
        max_tokens=6,
        seed=1,
    )
    order = [index for index, _ in batch]
    assert set(order[: order.index(1)]) == {0}
    assert len(batch.generations[0].ids) == 6


def test_cancelling_a_prefill_through_the_generation_and_its_task():
    model = model_of(n_ctx=200_000, n_layers=4)
    long = np.random.default_rng(0).integers(0, 256, 100_000).tolist()

    async def main():
        generation = model.generate(long, max_tokens=5)
        task = asyncio.create_task(anext(generation))
        await asyncio.sleep(0.3)
        started = time.perf_counter()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return generation, time.perf_counter() - started

    generation, _ = asyncio.run(main())
    assert generation.state.position == 0
    assert generation.finish_reason == "closed"
    with pytest.raises(StopIteration):
        next(generation)
    again = model.generate(long[:50], state=generation.state, max_tokens=3, seed=1)
    assert again.ids == [] and again.text() is not None
    cancelled = model.generate(long, max_tokens=5)
    cancelled.cancel()
    with pytest.raises(CancelledError):
        next(cancelled)
