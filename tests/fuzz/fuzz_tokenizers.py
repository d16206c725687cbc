"""Feed the tokenizer formats files that were damaged at random; nothing but a typed error may come.

``python tests/fuzz/fuzz_tokenizers.py --runs 100000 --seed 7``. What still loads has to encode and
decode without a crash. Every case is told by its seed alone: ``--only`` replays one.
"""

from __future__ import annotations

import base64
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_TESTS), str(_TESTS.parent), str(_TESTS / "fuzz")]

from driving import arguments, outcome_of, run_cases, timed  # noqa: E402
from fuzz_loaders import SECONDS_A_CASE, mutate  # noqa: E402

from rustllm import BpeTrainer  # noqa: E402
from rustllm._core.split import EXPRESSIONS  # noqa: E402
from rustllm.errors import RustLLMError  # noqa: E402
from rustllm.loaders.gguf import GGUFFile  # noqa: E402
from rustllm.tokenizers.bpe import BpeTokenizer  # noqa: E402
from rustllm.tokenizers.conversion import save_tokenizer  # noqa: E402
from rustllm.tokenizers.gguf import tokenizer_from_gguf  # noqa: E402
from rustllm.tokenizers.sentencepiece import SentencePieceTokenizer  # noqa: E402
from rustllm.tokenizers.sentencepiece_model import SentencePieceModel  # noqa: E402
from rustllm.tokenizers.sentencepiece_writer import model_bytes  # noqa: E402
from rustllm.tokenizers.tekken import tokenizer_from_tekken  # noqa: E402
from rustllm.tokenizers.tiktoken_format import encoder_from_ranks, read_ranks  # noqa: E402
from rustllm.tokenizers.tokenizer_json import from_bytes  # noqa: E402
from rustllm.tokenizers.wordpiece_trainer import WordPieceTrainer  # noqa: E402

CORPUS = ["low lower lowest slow, naïve 日本 12 <end>\n"] * 3
TEXTS = ["", "lower slow\n", "é日😀\0<end> \u0301", "x" * 50, "<0x41>▁"]


def try_out(tokenizer) -> None:
    """Use a tokenizer that loaded; only typed errors may come of it."""
    for text in TEXTS:
        try:
            ids = tokenizer.encode(text, disallowed_special=())
            tokenizer.decode(ids)
            tokenizer.count(text)
        except RustLLMError as error:
            str(error)
    for id in (-1, 0, tokenizer.n_vocab - 1, tokenizer.n_vocab, 1 << 31):
        try:
            tokenizer.id_to_bytes(id)
        except RustLLMError:
            pass


def use_json(data: bytes) -> None:
    try_out(from_bytes(data))


def use_tekken(data: bytes) -> None:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(content, dict):
        try_out(tokenizer_from_tekken(content))


def use_ranks(data: bytes) -> None:
    try_out(BpeTokenizer(encoder_from_ranks(read_ranks(data), {}, "gpt2")))


def use_model(data: bytes) -> None:
    try_out(SentencePieceTokenizer(data))


def use_gguf(data: bytes) -> None:
    try_out(tokenizer_from_gguf(GGUFFile.from_buffer(data)))


def seeds() -> dict[str, list[bytes]]:
    """Small sound files of every format."""
    trained = BpeTrainer(280, special_tokens=["<end>"]).train(CORPUS)
    words = WordPieceTrainer(60).train(CORPUS)._source
    unigram = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Metaspace"},
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [["<unk>", 0.0], ["▁low", -1.0], ["er", -1.5], ["s", -2.0], ["▁", -2.5]],
        },
    }
    pieces = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        *((c, -float(i), 1) for i, c in enumerate("▁low")),
    ]
    models = [
        model_bytes(SentencePieceModel([*pieces, ("▁low", -9.0, 1)], kind)) for kind in (1, 2)
    ]
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(trained, f"{folder}/a.json")
        save_tokenizer(trained, f"{folder}/a.gguf")
        trained.save(f"{folder}/a.tiktoken")
        read = {
            kind: Path(folder, f"a.{kind}").read_bytes() for kind in ("json", "gguf", "tiktoken")
        }
    tekken = {
        "config": {
            "pattern": EXPRESSIONS["tekken"][0],
            "default_vocab_size": 258,
            "default_num_special_tokens": 1,
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode()}
            for rank, token in enumerate([*(bytes([b]) for b in range(256)), b"lo"])
        ],
        "special_tokens": [{"rank": 0, "token_str": "<s>"}],
    }
    return {
        "json": [read["json"], words, json.dumps(unigram).encode()],
        "tekken": [json.dumps(tekken).encode()],
        "ranks": [read["tiktoken"]],
        "model": models,
        "gguf": [read["gguf"]],
    }


USES: dict[str, Callable[[bytes], None]] = {
    "json": use_json,
    "tekken": use_tekken,
    "ranks": use_ranks,
    "model": use_model,
    "gguf": use_gguf,
}
SEEDS = seeds()


def run_case(target: str, seed: int) -> str:
    """Run one case; "loaded", or the name of the typed error. Anything else is raised."""
    rng = random.Random(f"{target} {seed}")
    original = rng.choice(SEEDS[target])
    damaged = mutate(original, len(original), rng)
    with timed(f"{target} {seed}", SECONDS_A_CASE):
        return outcome_of(lambda: USES[target](damaged))


def main() -> int:
    parser = arguments(__doc__, USES)
    args = parser.parse_args()
    run_cases(args, USES, run_case)
    return 0


if __name__ == "__main__":
    sys.exit(main())
