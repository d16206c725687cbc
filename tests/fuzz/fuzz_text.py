"""Feed text that was mutated at random to a tokenizer and its peer; the ids have to be the same.

``python tests/fuzz/fuzz_text.py --runs 100000 --seed 7``. The peers are ``tiktoken``,
``tokenizers`` and ``sentencepiece``; the texts start from the reference corpora, and are cut,
spliced, repeated and sprinkled with what tokenizers are known to stumble over. Every case is told
by its seed alone: ``--only`` replays one. A case that once failed has its seed in `KEPT`.
"""

from __future__ import annotations

import lzma
import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_TESTS), str(_TESTS.parent), str(_TESTS / "fuzz")]

from driving import arguments, run_cases, timed  # noqa: E402
from paths import SHARED  # noqa: E402

import rustllm  # noqa: E402
from rustllm._core.split import EXPRESSIONS  # noqa: E402

SECONDS_A_CASE = 10.0
CORPORA = ("english", "code", "multilingual", "cjk")
# target -> seeds of cases that once failed
KEPT: dict[str, tuple[int, ...]] = {}
ODD = [
    *" \t\n\r\x0b\x0c\x1c\x85\xa0\u2028\u3000\u200b\u200d\ufeff\u00ad\0\x7f",
    *"'’ſK\u0345\u0130\u0131\u0149ßǅΣς\u0301\u0327\u20dd\ufe0f\U000e0020",
    *"▁Ġ0٣५¾Ⅷ〇中ー가\U00020000\U0001f600\U0010ffff\ue000\u2581",
    "'s",
    "'LL",
    "'ſ",
    "\r\n",
    "\n \n",
    "   ",
    "<|endoftext|>",
    "<s>",
    "[MASK]",
    "##",
    "<0x41>",
    "👩‍👩‍👧",
    "🇫🇷",
    "e\u0301\u0323",
]


@cache
def corpus(name: str) -> str:
    assert SHARED is not None
    with lzma.open(SHARED / f"corpora/{name}.txt.xz", "rt", encoding="utf-8", newline="") as file:
        return file.read(1_000_000)


def drawn_text(seed: int) -> str:
    """The text of a case."""
    rng = random.Random(seed)

    def cutting() -> str:
        text = corpus(rng.choice(CORPORA))
        start = rng.randrange(len(text))
        return text[start : start + int(2 ** rng.uniform(0, 9))]

    text = cutting()
    for _ in range(rng.randrange(8)):
        at = rng.randint(0, len(text))
        end = min(len(text), at + int(2 ** rng.uniform(0, 5)))
        kind = rng.randrange(8)
        if kind == 0:
            text = text[:at] + rng.choice(ODD) * rng.choice((1, 1, 1, 2, 3, 40)) + text[at:]
        elif kind == 1:
            text = text[:at] + text[end:]
        elif kind == 2:
            text = text[:at] + text[at:end] * rng.choice((2, 3, 17)) + text[end:]
        elif kind == 3:
            text = text[:at] + cutting() + text[at:]
        elif kind == 4:
            point = rng.choice(
                (rng.randrange(0x100), rng.randrange(0x3000), rng.randrange(0x110000))
            )
            text = text[:at] + ("?" if 0xD800 <= point < 0xE000 else chr(point)) + text[at:]
        elif kind == 5:
            changed = rng.choice((str.upper, str.lower, str.swapcase, str.title))(text[at:end])
            text = text[:at] + changed + text[end:]
        elif kind == 6:
            text = text[:at] + "".join(rng.choices(ODD, k=rng.randint(1, 12))) + text[end:]
        else:
            text = text[:at] + text[at:end][::-1] + text[end:]
    return text


# -- a tokenizer and its peer: what they make of a text --------------------------------------------

Pair = tuple[Callable[[str], Any], Callable[[str], Any]]


def _tiktoken(name: str) -> Pair:
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    assert SHARED is not None
    path = SHARED / f"conformance/models/tiktoken/{name}.tiktoken"
    ours = rustllm.get_encoding(name, vocab=path)
    expression = EXPRESSIONS[name.removesuffix("_base")]
    theirs = tiktoken.Encoding(
        name,
        pat_str="|".join(expression),
        mergeable_ranks=load_tiktoken_bpe(str(path)),
        special_tokens=dict(ours.special_tokens),
    )

    def use(text: str) -> Any:
        ids = ours.encode_ordinary(text)
        assert ours.count(text) == len(ids)
        return ids, ours.decode(ids)

    def reference(text: str) -> Any:
        ids = theirs.encode_ordinary(text)
        return ids, theirs.decode(ids)

    return use, reference


def _tokenizers(name: str) -> Pair:
    import tokenizers

    assert SHARED is not None
    path = SHARED / f"conformance/models/tokenizers/{name}.json"
    ours = rustllm.load_tokenizer(path)
    theirs = tokenizers.Tokenizer.from_file(str(path))

    def use(text: str) -> Any:
        ids = ours.encode(text, allowed_special="all")
        row = ours.as_hf().encode(text)
        return ids, ours.decode(ids), row.ids, row.offsets

    def reference(text: str) -> Any:
        ids = theirs.encode(text, add_special_tokens=False).ids
        row = theirs.encode(text)
        return ids, theirs.decode(ids, skip_special_tokens=False), row.ids, row.offsets

    return use, reference


def _sentencepiece(name: str) -> Pair:
    import sentencepiece

    assert SHARED is not None
    path = SHARED / f"conformance/models/sentencepiece/{name}.model"
    ours = rustllm.load_tokenizer(path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def use(text: str) -> Any:
        ids = ours.encode(text, disallowed_special=())
        return ids, ours.decode(ids)

    def reference(text: str) -> Any:
        ids = theirs.encode(text)
        return ids, theirs.decode(ids)

    return use, reference


USES: dict[str, Callable[[], Pair]] = {
    **{
        f"tiktoken-{name}": lambda name=name: _tiktoken(name)
        for name in ("cl100k_base", "o200k_base")
    },
    **{
        f"tokenizers-{name}": lambda name=name: _tokenizers(name)
        for name in ("bert_base_cased", "gpt2", "gpt_neox", "llama2", "mistral03")
    },
    "sentencepiece-llama2": lambda: _sentencepiece("llama2"),
}


@cache
def pair_of(target: str) -> Pair:
    return USES[target]()


def run_case(target: str, seed: int) -> str:
    """Compare on one text; "same", or an AssertionError with the text."""
    use, reference = pair_of(target)
    text = drawn_text(seed)
    with timed(f"{target} {seed}", SECONDS_A_CASE):
        ours = use(text)
    theirs = reference(text)
    assert ours == theirs, f"{target} differs for {text!r}: {ours} is not {theirs}"
    return "same"


if __name__ == "__main__":
    run_cases(arguments(__doc__, USES).parse_args(), USES, run_case)
