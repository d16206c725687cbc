"""The default model: texts made together, guessed ahead or resumed are those made alone."""

import numpy as np
import pytest

from rustllm.models.load import load_model
from rustllm.traits import PrefixCache

ASKED = [
    {"prompt": "The capital of France is", "temperature": 0},
    {"prompt": "Once upon a time, in a small village by the sea,", "seed": 1},
    {"prompt": "1, 2, 3, 4, 5,", "seed": 2, "top_p": 0.9, "temperature": 0.7},
    {"prompt": "def fibonacci(n):\n", "seed": 3, "top_k": 40, "max_tokens": 9},
    {"prompt": "Water " * 150, "seed": 4, "min_p": 0.05, "repeat_penalty": 1.1},
    {"prompt": "Q: Why is the sky blue?\nA:", "seed": 5, "stop": ["\n", "."]},
    {"messages": [{"role": "user", "content": "Name a prime number."}], "temperature": 0},
    {"prompt": "Grüße aus 日本 😀", "seed": 6, "typical_p": 0.9, "top_logprobs": 2},
]


@pytest.fixture(scope="module")
def model(smollm2_path):
    return load_model(smollm2_path, threads=2)


def alone(model, asked, **options):
    options = {**options, **asked}
    messages = options.pop("messages", None)
    if messages is not None:
        return model.chat(messages, **options)
    return model.generate(options.pop("prompt"), **options)


def told(pieces):
    return [(str(p), p.ids, p.logprobs, p.top_logprobs) for p in pieces]


def test_eight_texts_together_are_bit_for_bit_those_alone(model):
    expected = [told(alone(model, asked, max_tokens=24)) for asked in ASKED]
    for places in (8, 3):
        batch = model.generate_batch(ASKED, max_sequences=places, max_tokens=24)
        pieces = [[] for _ in ASKED]
        for index, piece in batch:
            pieces[index].append(piece)
        assert [told(p) for p in pieces] == expected


def test_drafts_and_kept_states_give_the_same_text(model):
    cache = PrefixCache()
    for asked in ASKED[:4]:
        expected = told(alone(model, asked, max_tokens=20))
        for extra in ({"draft": "lookup"}, {"prefix_cache": cache}, {"prefix_cache": cache}):
            assert told(alone(model, asked, max_tokens=20, **extra)) == expected


def test_a_conversation_reads_only_what_is_new(model):
    state = model.new_state(512)
    messages = []
    for question in ("Name a colour.", "Another one.", "And a third?"):
        messages.append({"role": "user", "content": question})
        answer = model.chat(messages, state=state, max_tokens=12, temperature=0)
        before = state.position
        text = answer.text()
        assert text == model.chat(messages, context=512, max_tokens=12, temperature=0).text()
        assert answer.n_reused >= before - 4
        messages.append({"role": "assistant", "content": text})


def test_saved_and_forked_states_go_on_with_the_same_bits(model, tmp_path):
    ids = model.tokenizer.encode("The sea was calm. " * 40)
    state = model.new_state(512)
    model.forward(ids[:140], state)
    state.save(tmp_path / "state.rllm")
    loaded = model.new_state(512)
    loaded.load(tmp_path / "state.rllm")
    scores = [model.forward(ids[140:150], s) for s in (state.fork(), loaded, state)]
    fresh = model.forward(ids[:150], model.new_state(512))
    assert all(np.array_equal(s, fresh) for s in scores)


def test_a_prompts_log_probabilities_are_those_of_its_generation(model):
    pieces = list(model.generate("The capital of France is", max_tokens=8, temperature=0))
    ids = [id for piece in pieces for id in piece.ids]
    prompt = model.tokenizer.encode("The capital of France is")
    scores = model.score([*prompt, *ids])
    assert scores.logprobs[len(prompt) :].tolist() == [p for x in pieces for p in x.logprobs]
    assert 1 < scores.perplexity < 100
