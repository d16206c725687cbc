"""Encoding, decoding and loading of byte-pair tokenizers, on text made up on the spot."""

import base64
import random
import tempfile
from pathlib import Path
from typing import Any

from rustllm._core.split import EXPRESSIONS
from rustllm.tokenizers import Encoding, load_tokenizer

SCRIPTS = {
    "english": "the of and to in is that it was for on are with as his they at be this from ",
    "code": "def return self.x == None: if (a[i] += 1) { for } import os\n    \n\t while not 0x1F ",
    "wide": "的 一是 不了 在人 有我他 这中大 来上国 个到说 们为子 ，和你 。地出道",
}
N_CHARS = 400_000


def make_text(script: str) -> str:
    pick = random.Random(7)
    words = SCRIPTS[script].split(" ")
    parts = []
    while len(parts) < N_CHARS // 5:
        parts.append(pick.choice(words) + pick.choice((" ", " ", " ", ", ", ".\n")))
    return "".join(parts)


def make_ranks(texts: list[str]) -> dict[bytes, int]:
    ranks = {bytes([i]): i for i in range(256)}
    for text in texts:
        for word in sorted(set(text.split())):
            data = b" " + word.encode()
            for end in range(2, len(data) + 1):
                ranks.setdefault(data[:end], len(ranks))
    return ranks


class Encode:
    """Warm encoding, 4,000 characters a call."""

    params = list(SCRIPTS)
    param_names = ["script"]

    def setup(self, script: str) -> None:
        text = make_text(script)
        self.encoding = Encoding(
            "bench", pat_str="cl100k", mergeable_ranks=make_ranks([text]), special_tokens={}
        )
        self.docs = [text[i : i + 4000] for i in range(0, len(text), 4000)]
        self.ids = [self.encoding.encode_to_numpy(doc) for doc in self.docs]

    def time_array(self, script: str) -> None:
        for doc in self.docs:
            self.encoding.encode_to_numpy(doc)

    def time_list(self, script: str) -> None:
        for doc in self.docs:
            self.encoding.encode_ordinary(doc)

    def time_count(self, script: str) -> None:
        for doc in self.docs:
            self.encoding.count(doc)

    def time_batch(self, script: str) -> None:
        self.encoding.encode_batch_flat(self.docs)

    def time_decode(self, script: str) -> None:
        for ids in self.ids:
            self.encoding.decode(ids)


class ShortDocuments:
    """Warm encoding, 100 characters a call: what a call costs apart from its text."""

    params = list(SCRIPTS)
    param_names = ["script"]

    def setup(self, script: str) -> None:
        text = make_text(script)[:100_000]
        self.encoding = Encoding(
            "bench", pat_str="cl100k", mergeable_ranks=make_ranks([text]), special_tokens={}
        )
        self.docs = [text[i : i + 100] for i in range(0, len(text), 100)]
        self.time_array(script)

    def time_array(self, script: str) -> None:
        for doc in self.docs:
            self.encoding.encode_to_numpy(doc)

    def time_list(self, script: str) -> None:
        for doc in self.docs:
            self.encoding.encode_ordinary(doc)

    def time_batch(self, script: str) -> None:
        self.encoding.encode_batch_flat(self.docs)


class LongText:
    """One text of 50 MB, and what its ids take to come back."""

    timeout = 120

    def setup(self) -> None:
        text = "".join(make_text(script) for script in SCRIPTS)
        self.encoding = Encoding(
            "bench", pat_str="cl100k", mergeable_ranks=make_ranks([text]), special_tokens={}
        )
        self.text = text * (50_000_000 // len(text.encode()) + 1)
        self.ids = self.encoding.encode_to_numpy(self.text)

    def time_encode(self) -> None:
        self.encoding.encode_to_numpy(self.text)

    def time_count(self) -> None:
        self.encoding.count(self.text)

    def time_decode(self) -> None:
        self.encoding.decode(self.ids)

    def peakmem_encode(self) -> None:
        self.encoding.encode_to_numpy(self.text)


class Decode:
    """Ids of 4,000 characters a call, from arrays and lists; tiktoken beside it where it is."""

    params = [["rustllm", "tiktoken"], list(SCRIPTS)]
    param_names = ["encoder", "script"]

    def setup(self, encoder: str, script: str) -> None:
        text = make_text(script)
        ranks = make_ranks([text])
        ours = Encoding("bench", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={})
        docs = [text[i : i + 4000] for i in range(0, len(text), 4000)]
        self.lists = [ours.encode_ordinary(doc) for doc in docs]
        self.arrays = [ours.encode_to_numpy(doc) for doc in docs]
        self.encoding = ours if encoder == "rustllm" else _tiktoken(ranks)

    def time_lists(self, encoder: str, script: str) -> None:
        for ids in self.lists:
            self.encoding.decode(ids)

    def time_bytes(self, encoder: str, script: str) -> None:
        for ids in self.lists:
            self.encoding.decode_bytes(ids)

    def time_arrays(self, encoder: str, script: str) -> None:
        for ids in self.arrays if encoder == "rustllm" else self.lists:
            self.encoding.decode(ids)


class EncodeBesideTiktoken:
    """The same documents, ranks and pattern."""

    params = [["rustllm", "tiktoken"], list(SCRIPTS)]
    param_names = ["encoder", "script"]

    def setup(self, encoder: str, script: str) -> None:
        text = make_text(script)[:80_000]
        ranks = make_ranks([text])
        if encoder == "rustllm":
            self.encoding = Encoding(
                "bench", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={}
            )
        else:
            self.encoding = _tiktoken(ranks)
        self.docs = [text[i : i + 4000] for i in range(0, len(text), 4000)]

    def time_array(self, encoder: str, script: str) -> None:
        for doc in self.docs:
            self.encoding.encode_to_numpy(doc)

    def time_list(self, encoder: str, script: str) -> None:
        for doc in self.docs:
            self.encoding.encode_ordinary(doc)


def _tiktoken(ranks: dict[bytes, int]) -> Any:
    try:
        import tiktoken
    except ImportError:
        raise NotImplementedError("tiktoken is not installed") from None
    return tiktoken.Encoding(
        "bench", pat_str=EXPRESSIONS["cl100k"][0], mergeable_ranks=ranks, special_tokens={}
    )


class Load:
    """A file of 50,000 ranks, and the first text after it."""

    def setup(self) -> None:
        pick = random.Random(3)
        tokens = {bytes([i]): i for i in range(256)}
        alphabet = b"abcdefghijklmnopqrstuvwxyz "
        while len(tokens) < 50_000:
            tokens.setdefault(bytes(pick.choices(alphabet, k=pick.randint(2, 8))), len(tokens))
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "cl100k_base.tiktoken"
        lines = (b"%s %d\n" % (base64.b64encode(t), rank) for t, rank in tokens.items())
        self.path.write_bytes(b"".join(lines))

    def teardown(self) -> None:
        self.folder.cleanup()

    def time_load(self) -> None:
        load_tokenizer(self.path)

    def time_load_and_encode(self) -> None:
        load_tokenizer(self.path).encode("the quick brown fox")


class Adversarial:
    """Text without a place to cut: time grows as n log n, not as n squared."""

    params = [["a", "ab ", "^", " ", "0"], [100_000, 1_000_000]]
    param_names = ["piece", "n_chars"]

    def setup(self, piece: str, n_chars: int) -> None:
        ranks = make_ranks(["aaaa abab ^^^^"])
        self.encoding = Encoding(
            "bench", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={}
        )
        self.text = piece * (n_chars // len(piece))

    def time_encode(self, piece: str, n_chars: int) -> None:
        self.encoding.encode_to_numpy(self.text)
