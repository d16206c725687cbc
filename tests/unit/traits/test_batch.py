"""Many texts made together are the texts that each gives alone."""

import asyncio
import threading

import pytest

from rustllm.errors import ArgumentError, CancelledError, ContextLengthError, ModelError
from rustllm.testing import BigramModel
from rustllm.traits import PrefixCache
from rustllm.traits.batch import PROMPT_TOKENS

TEXT = "the cat sat on the mat. the cat ran to the man. añ€😀 "
SETTINGS = [
    {"temperature": 0},
    {"seed": 1},
    {"seed": 2, "top_k": 3},
    {"seed": 3, "top_p": 0.8, "temperature": 1.5},
    {"seed": 4, "repeat_penalty": 1.3, "presence_penalty": 0.5},
    {"seed": 5, "stop": "at", "max_tokens": 40},
    {"seed": 6, "logit_bias": {ord("t"): 2.0}, "typical_p": 0.9},
    {"temperature": 0, "draft": "lookup", "max_tokens": 30},
    {"seed": 7, "draft": "lookup", "top_logprobs": 2},
    {"max_tokens": 0},
]
PROMPTS = ["the", "a", "s", "the cat sat on " * 40, "m", "on", "añ", "the c", "cat", "x"]


@pytest.fixture
def model():
    return BigramModel.fit(TEXT)


def alone(model):
    texts = []
    for prompt, own in zip(PROMPTS, SETTINGS, strict=True):
        generation = model.generate(prompt, **{"max_tokens": 12, **own})
        pieces = list(generation)
        texts.append((pieces, generation.ids, generation.finish_reason))
    return texts


def asked():
    return [{"prompt": p, **own} for p, own in zip(PROMPTS, SETTINGS, strict=True)]


@pytest.mark.parametrize("places", [1, 2, 3, 8, 20])
def test_each_text_is_the_one_it_is_alone(model, places):
    batch = model.generate_batch(asked(), max_sequences=places, max_tokens=12)
    pieces = {}
    most = 0
    for index, piece in batch:
        pieces.setdefault(index, []).append(piece)
        most = max(most, batch.n_running)
    for index, (expected, ids, reason) in enumerate(alone(model)):
        got = pieces.get(index, [])
        assert got == expected
        assert [p.ids for p in got] == [p.ids for p in expected]
        assert [p.logprobs for p in got] == [p.logprobs for p in expected]
        assert [p.top_logprobs for p in got] == [p.top_logprobs for p in expected]
        generation = batch.generations[index]
        assert (generation.ids, generation.finish_reason) == (ids, reason)
    assert most <= places
    assert (batch.n_running, batch.n_waiting) == (0, 0)


def test_long_prompts_share_what_a_step_may_read(model, monkeypatch):
    sizes = []
    read = model._read

    def counted(requests, *rest):
        sizes.append([len(request[0]) for request in requests])
        return read(requests, *rest)

    monkeypatch.setattr(model, "_read", counted)
    prompts = ["the cat sat on the mat. " * 30] * 4
    list(model.generate_batch(prompts, max_tokens=2, max_sequences=4))
    assert sum(sizes[0]) == PROMPT_TOKENS + 3  # the first has all of it, the others one token each
    assert max(sum(step) for step in sizes) == PROMPT_TOKENS + 3


def test_texts_join_while_others_are_made(model):
    batch = model.generate_batch(max_sequences=2, max_tokens=5, seed=1)
    assert list(batch) == []
    first = batch.add("the")
    index, _ = next(batch)
    assert index == first
    second = batch.add("a", seed=9, max_tokens=3)
    third = batch.add([ord("c")])
    batch.texts()
    expected = {
        first: model.generate("the", max_tokens=5, seed=1).text(),
        second: model.generate("a", max_tokens=3, seed=9).text(),
        third: model.generate("c", max_tokens=5, seed=1).text(),
    }
    decode = model.tokenizer.decode
    assert {i: decode(g.ids) for i, g in batch.generations.items()} == expected


def test_prompts_are_asked_for_as_places_become_free(model):
    asked_for = []

    def prompts():
        for i in range(6):
            asked_for.append(i)
            yield "the"

    batch = model.generate_batch(prompts(), max_sequences=2, max_tokens=3, temperature=0)
    next(batch)
    assert asked_for == [0, 1]
    assert batch.texts() != []
    assert asked_for == list(range(6))


def test_an_error_in_one_text_ends_that_one_only(model):
    def fail(piece):
        raise ZeroDivisionError

    batch = model.generate_batch(
        [
            "the",
            {"prompt": "a", "callback": fail},
            {"prompt": "a", "logits_processors": [lambda ids, scores: scores.fill(-float("inf"))]},
            {"prompt": "far too long", "context": 4},
            {"prompt": "a", "temperature": -1},
            "cat",
        ],
        max_tokens=5,
        seed=1,
    )
    errors, pieces = [], {}
    while True:
        try:
            index, piece = next(batch)
            pieces.setdefault(index, []).append(piece)
        except StopIteration:
            break
        except Exception as error:
            errors.append(error)
    assert {type(e) for e in errors} == {
        ZeroDivisionError,
        ModelError,
        ContextLengthError,
        ArgumentError,
    }
    assert sorted(e.fields["index"] for e in errors if hasattr(e, "fields")) == [2, 3, 4]
    for index, prompt in ((0, "the"), (5, "cat")):
        expected = model.generate(prompt, max_tokens=5, seed=1).text()
        assert "".join(pieces[index]) == expected


def test_one_text_is_taken_out(model):
    batch = model.generate_batch(["the", "a", "c"], max_sequences=2, max_tokens=30, seed=1)
    batch.add("s")
    next(batch)
    batch.cancel(0)
    batch.cancel(3)
    batch.texts()
    assert batch.generations[0].finish_reason == "closed"
    assert 3 not in batch.generations
    assert batch.generations[2].finish_reason == "length"


def test_closing_ends_all(model):
    batch = model.generate_batch(["the", "a", "c"], max_sequences=2, max_tokens=30, seed=1)
    next(batch)
    batch.close()
    batch.close()
    assert [piece for _, piece in batch][1:] == []
    assert all(g.finish_reason == "closed" for g in batch.generations.values())


def test_async_iteration_of_a_batch(model):
    async def read():
        found = {}
        async for index, piece in model.generate_batch(["the", "a"], max_tokens=6, seed=2):
            found[index] = found.get(index, "") + piece
        return found

    assert asyncio.run(read()) == {
        i: model.generate(p, max_tokens=6, seed=2).text() for i, p in enumerate(["the", "a"])
    }


def test_settings_of_a_batch_that_make_no_sense(model):
    for wrong in (
        lambda: model.generate_batch("the"),
        lambda: model.generate_batch({"prompt": "the"}),
        lambda: model.generate_batch(["the"], max_sequences=0),
        lambda: model.generate_batch(["the"], state=model.new_state()),
        lambda: model.generate_batch().add({"seed": 1}),
    ):
        with pytest.raises(ArgumentError):
            wrong()


def test_a_batch_of_prompts_that_begin_alike_reads_the_beginning_once(model):
    cache = PrefixCache()
    start = "the cat sat on the mat. "
    prompts = [start + end for end in ("a", "b", "c", "d")]
    batch = model.generate_batch(
        prompts, max_sequences=1, max_tokens=4, temperature=0, prefix_cache=cache
    )
    texts = batch.texts()
    assert texts == [model.generate(p, max_tokens=4, temperature=0).text() for p in prompts]
    assert [g.n_reused for g in batch.generations.values()] == [0, 24, 24, 24]


def test_cancelling_the_task_stops_the_thread(model):
    started = threading.Event()

    def slow(ids, scores):
        started.set()
        threading.Event().wait(0.05)

    async def main():
        generation = model.generate("the", max_tokens=1000, logits_processors=[slow])

        async def read():
            async for _ in generation:
                pass

        task = asyncio.create_task(read())
        while not started.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return generation

    generation = asyncio.run(main())
    assert generation.finish_reason == "closed"
    n = len(generation.ids)
    assert n < 100
    with pytest.raises((StopIteration, CancelledError)):
        next(generation)
