"""The hot kernels as small programs whose instructions `instruction_gate.py` counts.

    python tools/instruction_workloads.py NAME REPETITIONS

A workload prepares its data and returns the function to repeat. One thread each: how often threads
look for work depends on the clock.
"""

from __future__ import annotations

import gc
import json
import random
import sys
from collections.abc import Callable

Work = Callable[[], object]
WORKLOADS: dict[str, tuple[Callable[[], Work], int]] = {}


def workload(repetitions: int) -> Callable[[Callable[[], Work]], Callable[[], Work]]:
    """Register a workload that is repeated so often."""

    def register(prepare: Callable[[], Work]) -> Callable[[], Work]:
        WORKLOADS[prepare.__name__] = prepare, repetitions
        return prepare

    return register


ENGLISH = "the of and to in is that it was for on are with as his they at be this from".split()  # noqa: SIM905
CHINESE = "的一是不了在人有我他这中大来上国个到说们为子和你地出道"


def text(words: object, n: int, between: str = " ") -> str:
    """Return n words in an order that is always the same."""
    pick = random.Random(7)
    return between.join(pick.choice(words) for _ in range(n))  # type: ignore[arg-type]


def encoding() -> object:
    """Return a byte-pair encoding whose tokens are beginnings of the words."""
    from rustllm.tokenizers import Encoding

    ranks = {bytes([i]): i for i in range(256)}
    for word in [*ENGLISH, *CHINESE]:
        for data in (word.encode(), b" " + word.encode()):
            for end in range(2, len(data) + 1):
                ranks.setdefault(data[:end], len(ranks))
    return Encoding("gate", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={})


@workload(20)
def encode_english() -> Work:
    """Pretokens that the cache knows."""
    enc, doc = encoding(), text(ENGLISH, 4000)
    return lambda: enc.encode_to_numpy(doc)  # type: ignore[attr-defined]


@workload(20)
def encode_chinese() -> Work:
    """Three bytes a character, no spaces."""
    enc, doc = encoding(), text(CHINESE, 4000, "")
    return lambda: enc.encode_to_numpy(doc)  # type: ignore[attr-defined]


@workload(2)
def encode_long_word() -> Work:
    """One pretoken of 20,000 letters: the heap."""
    enc, doc = encoding(), text("abcdefghij", 20_000, "")
    return lambda: enc.encode_to_numpy(doc)  # type: ignore[attr-defined]


@workload(20)
def decode() -> Work:
    """Ids to text."""
    enc = encoding()
    ids = enc.encode_to_numpy(text(ENGLISH, 4000))  # type: ignore[attr-defined]
    return lambda: enc.decode(ids)  # type: ignore[attr-defined]


@workload(1)
def train() -> Work:
    """Counting and merging."""
    from rustllm import BpeTrainer

    pick = random.Random(3)
    words = ["".join(pick.choices("etaoinshrdlu", k=pick.randint(2, 9))) for _ in range(800)]
    doc = text(words, 8000)
    trainer = BpeTrainer(vocab_size=500, num_threads=1)
    return lambda: trainer.train([doc])


@workload(50)
def validate_utf8() -> Work:
    """64 KiB, a third of it not ASCII."""
    from rustllm.memory import validate_utf8

    data = (text(ENGLISH, 10_000) + text(CHINESE, 5_000, "")).encode()
    return lambda: validate_utf8(data)


@workload(200)
def arena_alloc() -> Work:
    """A hundred views."""
    from rustllm import Arena

    arena = Arena()

    def work() -> None:
        for _ in range(100):
            arena.alloc(64)
        arena.reset()

    return work


@workload(2000)
def pool_lease() -> Work:
    """Take and give back."""
    from rustllm import TokenPool

    pool = TokenPool()
    return lambda: pool.lease(100).release()


@workload(2000)
def error_context() -> Work:
    """Nothing fails."""
    from rustllm import error_context

    def work() -> None:
        with error_context("loading", name="x"):
            pass

    return work


def matrix(type_id: int, block_bytes: int) -> object:
    """Return a packed matrix of 256 rows by 512."""
    import numpy as np

    from rustllm._core.linear import PackedMatrix, pack

    columns = 1 if type_id == 1 else 256 if type_id == 14 else 32
    blocks = np.random.default_rng(0).integers(
        0, 60, (256 * 512 // columns, block_bytes), dtype=np.uint8
    )
    # Scales, and for Q4_1 the offsets behind them, have to be finite.
    small = np.full((len(blocks), 2), 0.01, np.float16).view(np.uint8)
    at, width = (208, 2) if type_id == 14 else (0, 4 if type_id == 3 else 2)
    blocks[:, at : at + width] = small[:, :width]
    packed = PackedMatrix(type_id, 256, 512, blocks.tobytes())
    pack([packed])
    return packed


def product(type_id: int, block_bytes: int, n: int) -> Work:
    """Return the product of such a matrix with n tokens."""
    import numpy as np

    packed = matrix(type_id, block_bytes)
    x = np.random.default_rng(1).standard_normal((n, 512)).astype(np.float32)
    return lambda: packed.matmul(x, threads=1)  # type: ignore[attr-defined]


@workload(50)
def linear_q4_1_one() -> Work:
    """A token, 4 bits."""
    return product(3, 20, 1)


@workload(5)
def linear_q4_1_many() -> Work:
    """64 tokens, 4 bits."""
    return product(3, 20, 64)


@workload(50)
def linear_q8_0_one() -> Work:
    """A token, 8 bits."""
    return product(8, 34, 1)


@workload(5)
def linear_q8_0_many() -> Work:
    """64 tokens, 8 bits."""
    return product(8, 34, 64)


@workload(50)
def linear_q5_0_one() -> Work:
    """A token, 5 bits."""
    return product(6, 22, 1)


@workload(5)
def linear_q5_0_many() -> Work:
    """64 tokens, 5 bits."""
    return product(6, 22, 64)


@workload(50)
def linear_q6_k_one() -> Work:
    """A token, 6 bits in blocks of 256."""
    return product(14, 210, 1)


@workload(5)
def linear_q6_k_many() -> Work:
    """64 tokens, 6 bits in blocks of 256."""
    return product(14, 210, 64)


@workload(50)
def linear_f16_one() -> Work:
    """A token, half precision."""
    return product(1, 2, 1)


def attention(n: int) -> Work:
    """Return attention of n queries over a segment of half precision."""
    import numpy as np

    from rustllm._core.segment import attend, store_positions

    keys, values = np.random.default_rng(2).standard_normal((2, 128, 64)).astype(np.float32)
    planes = store_positions(keys, values, "float16")
    queries = keys[:n] / 8
    return lambda: attend(planes, queries, [0] * n, [128] * n, "float16")


@workload(50)
def attend_one() -> Work:
    """A token, three heads that share their keys."""
    return attention(3)


@workload(20)
def attend_many() -> Work:
    """Eight tokens."""
    return attention(8)


def row(kind: str) -> Work:
    """Return an operation on 64 KiB of numbers."""
    import numpy as np

    from rustllm import ops

    x = np.random.default_rng(3).standard_normal((8, 2048)).astype(np.float32)
    operation = getattr(ops, kind)
    return lambda: operation(x, threads=1)  # type: ignore[no-any-return]


@workload(20)
def silu() -> Work:
    """The activation."""
    return row("silu")


@workload(20)
def softmax() -> Work:
    """Exponentials and their sum."""
    return row("softmax")


def main(name: str, repetitions: int) -> None:
    """Run a workload."""
    work = WORKLOADS[name][0]()
    work()
    # Whether a collection falls among the repetitions is up to what was imported.
    gc.collect()
    gc.disable()
    for _ in range(repetitions):
        work()


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(json.dumps({name: n for name, (_, n) in WORKLOADS.items()}))
    else:
        main(sys.argv[1], int(sys.argv[2]))
