"""What is run while the n-th request for memory fails: one scenario in a process of its own.

    LD_PRELOAD=failing_malloc.so PYTHONPATH=tests python tests/allocation/scenarios.py NAME

Every function returns a pair: an act, and what the act has to return whenever it does. The act runs
over and over, each time with a later request failing, until it asks for no more. It may raise
OutOfMemoryError and nothing else; afterwards it must still return what it should, and hold no block
more than before. The last line of the output is the number of failures survived.
"""

import ctypes
import gc
import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from unit.models.tiny import tiny_model

from rustllm import (
    Arena,
    BpeTrainer,
    Cow,
    Encoding,
    TextSlice,
    TokenPool,
    chunks,
    constrain,
    load_tokenizer,
    ops,
    stream,
    windows,
)
from rustllm._core.automaton import Automaton, TokenTrie

TEXT = "It's a naïve café, 日本語 text 12345 with  spaces\n\n" * 3 + "x" * 300
TEXTS = [TEXT, "", "short", "low lower lowest " * 20] * 8


def memory():
    """Arena, pool, copy on write and slices."""
    source = np.arange(50)

    def act():
        arena, pool = Arena(chunk_size=256), TokenPool()
        with arena.scope():
            kept = arena.alloc_array((40,), np.int32)
            kept[:] = 3
            arena.alloc(5_000)
            total = int(kept.sum())
            del kept
        with pool.lease(1_000) as lease:
            np.asarray(lease)[:3] = 7
        cow = Cow(source)
        cow.to_mut()[0] = 9
        return total, len(TextSlice(TEXT).split()), int(source[0])

    return act


def iterators():
    """Branches of a tee whose ring grows; windows and chunks."""

    def act():
        a, b = stream.tee(range(500))
        return sum(a) + sum(b), len(list(windows(range(50), 4))), list(chunks(range(9), 4))

    return act


def encoding():
    """Build, encode, decode and count in every way, with caches that start empty."""
    ranks = BpeTrainer(330, "cl100k").train(TEXTS).mergeable_ranks()

    def act():
        enc = Encoding(
            "small", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={"<end>": 900}
        )
        ids = enc.encode(TEXT, allowed_special="all")
        lists = enc.encode_batch(TEXTS, num_threads=2)
        return (
            ids,
            lists,
            enc.decode(ids) == TEXT,
            enc.decode_batch(lists) == TEXTS,
            enc.count(TEXT),
            enc.decode_with_offsets(ids)[1],
            enc.encode_to_numpy(TEXT).tolist(),
        )

    return act


def training():
    """Count with two threads and merge."""
    return lambda: BpeTrainer(300, "cl100k", num_threads=2).train(TEXTS).merges()


def files():
    """Count a file with two threads; write the vocabulary and read it back."""
    holder = tempfile.TemporaryDirectory()
    Path(holder.name, "text").write_text(TEXT * 200)

    def act():
        folder = Path(holder.name)
        trained = BpeTrainer(300, "cl100k", num_threads=2).train_files([folder / "text"])
        trained.save(folder / "tokenizer.json")
        Encoding(
            "made", pat_str="gpt2", mergeable_ranks=trained.mergeable_ranks(), special_tokens={}
        ).save(folder / "gpt2.tiktoken")
        return (
            load_tokenizer(folder / "tokenizer.json").encode(TEXT),
            load_tokenizer(folder / "gpt2.tiktoken", encoding="gpt2").encode(TEXT),
        )

    return act


def hugging_face(kind):
    from rustllm.tokenizers.tokenizer_json import from_bytes

    words = ["[UNK]", "low", "##er", "##est", "l", "##o", "##w", "a", "caf", "##é", "text"]
    models = {
        "WordPiece": {
            "vocab": {word: i for i, word in enumerate(words)},
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        "Unigram": {
            "unk_id": 0,
            "vocab": [
                ["<unk>", 0.0],
                *([w, -1.0 - i] for i, w in enumerate(["▁", "l", "o", "w", "e", "r", "x"])),
            ]
            + [["▁low", -1.5], ["er", -2.5], ["low", -2.0]],
        },
    }
    whole = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "BertPreTokenizer"}
        if kind == "WordPiece"
        else {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None,
        "decoder": None,
        "model": {"type": kind, **models[kind]},
    }
    data = json.dumps(whole).encode()

    def act():
        tokenizer = from_bytes(data)
        return [tokenizer.encode(text) for text in TEXTS[:4]]

    return act


def word_piece():
    """Load and encode with a WordPiece vocabulary."""
    return hugging_face("WordPiece")


def unigram():
    """Load and encode with a Unigram vocabulary."""
    return hugging_face("Unigram")


def model():
    """Pack quantized weights, feed a prompt, fork, go on in both, cut back, and batch."""
    ids = np.arange(150) % 83

    def act():
        made = tiny_model(threads=2, type_id=8)
        state = made.new_state()
        first = made.forward(ids, state)[-1]
        twin = state.fork()
        second = made.forward([1, 2, 3], twin)[-1]
        state.truncate(130)
        both = made.forward_batch([[5], [6, 7]], [state, twin])
        return [x.tobytes() for x in (first, second, *both)]

    return act


def a_step_of_a_state_in_use():
    """The state a failed call leaves behind goes on as if it had not been made."""
    made = tiny_model(threads=2)
    ids = np.arange(300) % 83
    expected = made.forward(ids, made.new_state()).tobytes()

    def act():
        state = made.new_state()
        rows = []
        for start in range(0, 300, 50):
            for attempt in itertools.count():
                try:
                    rows.append(made.forward(ids[start : start + 50], state).tobytes())
                    break
                except MemoryError:
                    assert attempt == 0
        return b"".join(rows) == expected

    return act


def constraint():
    """The automaton of a rule and its masks."""
    network = constrain.regex(r"[a-c]{2,5}(low|er)+")._grammar.network()
    tokens = [bytes([b]) for b in range(256)] + [b"low", b"ablow", b"er"]

    def act():
        automaton = Automaton(*network, TokenTrie(tokens), 64)
        state, allowed = automaton.start(), []
        for piece in (b"a", b"b", b"low", b"er"):
            state = automaton.advance(state, piece)
            allowed.append(automaton.allowed(state))
        return allowed, automaton.may_end(state)

    return act


def operations():
    """Products, attention, norms and blocks."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 64)).astype(np.float32)
    w = rng.standard_normal((96, 64)).astype(np.float32)
    q = rng.standard_normal((2, 9, 16)).astype(np.float32)

    def act():
        packed = ops.quantize(w, "Q8_0")
        results = (
            ops.linear(x, w, threads=2),
            ops.linear(x[::2], packed, threads=2),
            ops.attention(q, q, q, causal=True, threads=2),
            ops.rms_norm(x.T, np.ones(7, np.float32)),
            ops.softmax(x[:, ::3]),
            ops.dequantize(packed),
        )
        return [r.tobytes() for r in results]

    return act


def forgetting():
    """No scenario: what the sweep must find fault with, blocks that are kept after a failure."""
    kept = []

    def act():
        arena = Arena()
        try:
            arena.alloc(10)
        except MemoryError:
            kept.append(arena)
            raise
        kept.append(arena) if kept else None

    return act


def sweep(make):
    """Run the act with every request failing once; return how many failures it survived."""
    library = ctypes.CDLL(None)
    library.failing_disarm.restype = library.failing_live.restype = ctypes.c_long
    library.failing_arm.argtypes = [ctypes.c_long]
    act = make()
    expected = act()
    assert library.failing_watch() > 0
    for _ in range(2):
        assert act() == expected
    gc.collect()
    held = library.failing_live()
    n = survived = 0
    while True:
        print(n, file=sys.stderr, flush=True)  # where a crash happened
        library.failing_arm(n)
        try:
            got = act()
        except MemoryError:
            got = expected
        finally:
            failed = library.failing_disarm()
        assert got == expected, f"request {n}: a wrong result instead of an error"
        if not failed:
            break
        survived += 1
        n += 1 + n // 40
    assert act() == expected
    gc.collect()
    assert library.failing_live() <= held, f"{library.failing_live() - held} blocks are left"
    return survived


SCENARIOS = {
    make.__name__: make
    for make in (
        memory, iterators, encoding, training, files, word_piece, unigram, model,
        a_step_of_a_state_in_use, constraint, operations, forgetting,
    )
}  # fmt: skip

if __name__ == "__main__":
    print(sweep(SCENARIOS[sys.argv[1]]))
