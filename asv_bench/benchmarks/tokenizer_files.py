"""Opening tokenizer files, and encoding with models other than byte-level BPE."""

import json
import random
from typing import Any

from rustllm.tokenizers.tokenizer_json import from_bytes
from rustllm.tokenizers.trainer import BpeTrainer

_LETTERS = "etaoinshrdlu"


def _text(n_words: int) -> str:
    rng = random.Random(1)
    stems = ["".join(rng.choices(_LETTERS, k=rng.randint(1, 7))) for _ in range(4000)]
    return " ".join(rng.choices(stems, [1 / rank for rank in range(1, 4001)], k=n_words))


def _file(kind: str) -> bytes:
    if kind == "Unigram, NFKC":
        return json.dumps({**json.loads(_file("Unigram")), "normalizer": {"type": "NFKC"}}).encode()
    if kind == "SentencePiece BPE":
        return _sentencepiece_file()
    text = _text(60_000)
    trained = BpeTrainer(4000).train([text])
    if kind == "BPE":
        return json.dumps(trained.to_json()).encode()
    words = sorted({token.decode("latin-1").strip() for token in trained.token_bytes()} - {""})
    content = {**trained.to_json(), "added_tokens": [], "decoder": None}
    if kind == "WordPiece":
        pieces = ["[UNK]", *words, *(f"##{word}" for word in words)]
        content["normalizer"] = {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        }
        content["pre_tokenizer"] = {"type": "BertPreTokenizer"}
        content["model"] = {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
        }
    else:
        pieces = [f"▁{word}" for word in words] + words
        content["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "always",
        }
        content["model"] = {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [["<unk>", 0.0], *([p, -float(i % 13) - 1] for i, p in enumerate(pieces))],
        }
    return json.dumps(content).encode()


def _sentencepiece_file() -> bytes:
    """Merges over words that a mark begins, with bytes to fall back on."""
    words = sorted(set(_text(60_000).split()), key=len)
    vocab = {text: i for i, text in enumerate(["<unk>", "▁", *_LETTERS])}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    merges = []
    for word in words:
        made = "▁"
        for letter in word:
            if made + letter not in vocab:
                vocab[made + letter] = len(vocab)
                merges.append([made, letter])
            made += letter
    model = {
        "type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "<unk>", "fuse_unk": True,
        "byte_fallback": True, "dropout": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
    }  # fmt: skip
    normalizer = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    return json.dumps(
        {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": normalizer, "pre_tokenizer": None, "post_processor": None,
            "decoder": None, "model": model,
        }
    ).encode()  # fmt: skip


def _open(library: str, source: bytes) -> Any:
    if library == "rustllm":
        return from_bytes(source).encode_ordinary
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise NotImplementedError("tokenizers is not installed") from None
    peer = Tokenizer.from_str(source.decode())
    return lambda text: peer.encode(text, add_special_tokens=False).ids


class EncodeWithModel:
    """Documents of 4,000 characters by each kind of model; tokenizers beside it where it is."""

    params = [
        ["rustllm", "tokenizers"],
        ["BPE", "SentencePiece BPE", "WordPiece", "Unigram", "Unigram, NFKC"],
    ]
    param_names = ["library", "model"]

    def setup(self, library: str, model: str) -> None:
        text = _text(60_000) + " “quoted” café" * 100
        self.docs = [text[i : i + 4000] for i in range(0, len(text), 4000)]
        self.encode = _open(library, _file(model))
        self.encode(self.docs[0])

    def time_encode(self, library: str, model: str) -> None:
        for doc in self.docs:
            self.encode(doc)


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
