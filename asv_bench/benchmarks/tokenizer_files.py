"""Opening tokenizer files, and encoding with models other than byte-level BPE."""

import json
import random

from rustllm.tokenizers.tokenizer_json import from_bytes
from rustllm.tokenizers.trainer import BpeTrainer

_LETTERS = "etaoinshrdlu"


def _text(n_words: int) -> str:
    rng = random.Random(1)
    stems = ["".join(rng.choices(_LETTERS, k=rng.randint(1, 7))) for _ in range(4000)]
    return " ".join(rng.choices(stems, [1 / rank for rank in range(1, 4001)], k=n_words))


def _file(kind: str) -> bytes:
    text = _text(60_000)
    trained = BpeTrainer(4000).train([text])
    if kind == "BPE":
        return json.dumps(trained.to_json()).encode()
    words = sorted({token.decode("latin-1").strip() for token in trained.token_bytes()} - {""})
    content = {**trained.to_json(), "added_tokens": [], "decoder": None}
    if kind == "WordPiece":
        pieces = ["[UNK]", *words, *(f"##{word}" for word in words)]
        content["normalizer"] = {"type": "BertNormalizer"}
        content["pre_tokenizer"] = {"type": "BertPreTokenizer"}
        content["model"] = {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "vocab": {piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
        }
    else:
        pieces = [f"▁{word}" for word in words] + words
        content["pre_tokenizer"] = {"type": "Metaspace"}
        content["model"] = {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [["<unk>", 0.0], *([p, -float(i % 13) - 1] for i, p in enumerate(pieces))],
        }
    return json.dumps(content).encode()


class EncodeWithModel:
    """One text of a megabyte by each kind of model."""

    params = [["BPE", "WordPiece", "Unigram"]]
    param_names = ["model"]

    def setup(self, model: str) -> None:
        self.text = _text(180_000)
        self.tokenizer = from_bytes(_file(model))
        self.tokenizer.encode_to_numpy(self.text)

    def time_encode(self, model: str) -> None:
        self.tokenizer.encode_to_numpy(self.text)


class OpenTokenizerFile:
    """From bytes to a tokenizer; with 10,000 added tokens too."""

    params = [["BPE", "WordPiece", "Unigram"], [0, 10_000]]
    param_names = ["model", "n_added"]

    def setup(self, model: str, n_added: int) -> None:
        content = json.loads(_file(model))
        first = 100_000
        content["added_tokens"] = [
            {"id": first + i, "content": f"<extra_{i}>", "special": False, "normalized": False}
            for i in range(n_added)
        ]
        self.source = json.dumps(content).encode()

    def time_open(self, model: str, n_added: int) -> None:
        from_bytes(self.source)
