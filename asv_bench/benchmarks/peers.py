"""How many times faster than what one would use instead, in interleaved rounds of one process.

A ratio outlives the machine it was measured on, which a time does not. Not a number where the other
package is not installed. Races against engines that need a process of their own are in
`docs/performance.md`.
"""

import json
import os
import subprocess
import sys

from benchmarks.tokenizers import SCRIPTS, make_ranks, make_text
from rustllm._core.split import EXPRESSIONS
from rustllm.bench import compare
from rustllm.tokenizers import Encoding
from rustllm.tokenizers.tokenizer_json import from_bytes

try:
    import tiktoken
except ImportError:
    tiktoken = None
try:
    import tokenizers
except ImportError:
    tokenizers = None

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
NOT_MEASURED = float("nan")  # asv shows it as n/a


def ratio(ours, peer):
    """How many times faster ours is."""
    return compare({"ours": ours, "peer": peer}, rounds=5).ratio("ours", "peer").value


class Tiktoken:
    """The same ranks in both: documents of 4,000 characters."""

    params = list(SCRIPTS)
    param_names = ["script"]
    unit = "times tiktoken"

    def setup(self, script):
        text = make_text(script)
        ranks = make_ranks([text])
        self.docs = [text[i : i + 4000] for i in range(0, len(text), 4000)]
        self.ours = Encoding("bench", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={})
        self.ids = [self.ours.encode_ordinary(doc) for doc in self.docs]
        self.peer = tiktoken and tiktoken.Encoding(
            "bench",
            pat_str=EXPRESSIONS["cl100k"][0],
            mergeable_ranks=ranks,
            special_tokens={},
        )

    def track_encode(self, script):
        if self.peer is None:
            return NOT_MEASURED
        return ratio(
            lambda: [self.ours.encode_ordinary(doc) for doc in self.docs],
            lambda: [self.peer.encode_ordinary(doc) for doc in self.docs],
        )

    def track_batch(self, script):
        if self.peer is None:
            return NOT_MEASURED
        return ratio(
            lambda: self.ours.encode_ordinary_batch(self.docs),
            lambda: self.peer.encode_ordinary_batch(self.docs),
        )

    def track_decode(self, script):
        if self.peer is None:
            return NOT_MEASURED
        return ratio(
            lambda: [self.ours.decode(ids) for ids in self.ids],
            lambda: [self.peer.decode(ids) for ids in self.ids],
        )


class Tokenizers:
    """A WordPiece and a Unigram vocabulary of the same ``tokenizer.json``."""

    params = ["WordPiece", "Unigram"]
    param_names = ["model"]
    unit = "times tokenizers"

    def setup(self, model):
        text = make_text("english")
        words = sorted(set(text.split()))
        if model == "WordPiece":
            pieces = {"[UNK]", *words, *ALPHABET, ",", "."}
            pieces |= {f"##{c}" for c in ALPHABET}
            vocab = {piece: id for id, piece in enumerate(sorted(pieces))}
            parts = {
                "model": {
                    "type": "WordPiece",
                    "unk_token": "[UNK]",
                    "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100,
                    "vocab": vocab,
                },
                "pre_tokenizer": {"type": "BertPreTokenizer"},
            }
        else:
            pieces = sorted(
                {*words, *(f"▁{word}" for word in words), *"abcdefghijklmnopqrstuvwxyz"}
            )
            scored = [["<unk>", 0.0], *([p, -3.0 - i / 16] for i, p in enumerate(pieces))]
            parts = {
                "model": {"type": "Unigram", "unk_id": 0, "vocab": scored},
                "pre_tokenizer": {
                    "type": "Metaspace",
                    "replacement": "▁",
                    "prepend_scheme": "always",
                    "split": True,
                },
            }
        empty = ("normalizer", "post_processor", "decoder", "truncation", "padding")
        source = json.dumps({"version": "1.0", "added_tokens": [], **dict.fromkeys(empty), **parts})
        self.docs = [text[i : i + 4000] for i in range(0, len(text), 4000)]
        self.ours = from_bytes(source.encode(), "bench")
        self.peer = tokenizers and tokenizers.Tokenizer.from_str(source)

    def track_encode(self, model):
        if self.peer is None:
            return NOT_MEASURED
        return ratio(
            lambda: [self.ours.encode_ordinary(doc) for doc in self.docs],
            lambda: [self.peer.encode(doc).ids for doc in self.docs],
        )


ONE_THREAD = """
import sys
import numpy as np
from rustllm import ops
from rustllm.bench import compare
rng = np.random.default_rng(7)
x = rng.standard_normal((int(sys.argv[1]), 2048), np.float32)
weight = rng.standard_normal((2048, 2048), np.float32)
out = np.empty((len(x), 2048), np.float32)
table = compare(
    {
        "ours": lambda: ops.linear(x, weight, out=out, threads=1),
        "peer": lambda: np.matmul(x, weight.T, out=out),
    },
    rounds=9,
)
print(table.ratio("ours", "peer").value)
"""


class Numpy:
    """Products of single precision on one thread.

    In a process of its own: the threads of numpy's library go on spinning for a while after each
    call, on the cores that ours would need, and how many there are is said before it is loaded.
    """

    params = [1, 32, 512]
    param_names = ["rows"]
    unit = "times numpy"

    def track_linear(self, rows):
        done = subprocess.run(
            [sys.executable, "-c", ONE_THREAD, str(rows)],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=True,
            text=True,
        )
        return float(done.stdout)
