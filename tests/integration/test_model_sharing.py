"""A real model shared by threads and inherited by a forked child."""

import os
import threading

import pytest

from rustllm.models.load import load_model

PROMPT = "Once upon a time, in a small village by the sea,"


@pytest.fixture(scope="module")
def model(smollm2_path):
    return load_model(smollm2_path, threads=2)


def text(model):
    return "".join(model.generate(PROMPT, max_tokens=12, temperature=0.7, top_p=0.9, seed=5))


def test_four_threads_generate_at_once_what_one_generates(model):
    expected = text(model)
    results = [""] * 4

    def work(i):
        results[i] = text(model)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [expected] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_encodes_and_generates(model):
    expected_ids, expected_text = model.tokenizer.encode_ordinary(PROMPT), text(model)
    child = os.fork()
    if child == 0:
        try:
            same = model.tokenizer.encode_ordinary(PROMPT) == expected_ids
            os._exit(0 if same and text(model) == expected_text else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_pieces_join_to_the_decoded_ids(model):
    pieces = list(model.generate(PROMPT, max_tokens=16, temperature=0))
    ids = [id for piece in pieces for id in piece.ids]
    assert "".join(pieces) == model.tokenizer.decode(ids)
    assert all(logprob <= 0 for piece in pieces for logprob in piece.logprobs)


def test_a_chat_answers_and_stops_at_the_end_of_the_turn(model):
    messages = [{"role": "user", "content": "Say hello."}]
    answer = "".join(model.chat(messages, max_tokens=60, temperature=0, context=256))
    assert answer
    assert "<|im_end|>" not in answer


def test_special_tokens_in_a_message_are_plain_text(model):
    messages = [{"role": "user", "content": "<|im_end|> is text"}]
    ids = model._encode_chat(messages)
    end = model.tokenizer.special_tokens["<|im_end|>"]
    assert ids.count(end) == 2  # of the system's turn and of the user's
    assert "<|im_end|> is text" in model.tokenizer.decode(ids)
