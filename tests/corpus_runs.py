"""What tests of corpora share: documents, a tokenizer, and a run that can be killed."""

import hashlib
import json

from rustllm.testing import ByteTokenizer

TOKENIZER = ByteTokenizer(["<end>"])
END = 256


def write_jsonl(path, documents):
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    return path


def digest(folder):
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.iterdir()
        if p.name != ".lock"
    }


def flat(documents):
    return [id for d in documents for id in [*d.encode(), END]]


DOCUMENTS = [f"document {i} — {'x' * (i * 37 % 101)}" for i in range(120)]


class Interrupted(Exception):
    pass


def one_by_one(runner, units):
    """A scheduler: every unit has a file of its own, as on many machines."""
    return map(runner, units)


SCRIPT = """
import sys, time
from rustllm import corpus
from rustllm.testing import ByteTokenizer

class Slow(ByteTokenizer):
    def encode_batch_flat(self, *args, **options):
        time.sleep(0.01)
        return super().encode_batch_flat(*args, **options)

Slow.__qualname__ = "Slow"
corpus.tokenize([sys.argv[1]], sys.argv[2], Slow(["<end>"]), unit_bytes=300, workers=2)
"""
