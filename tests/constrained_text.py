"""Texts as a model without sense would write them under a constraint."""

import numpy as np

from rustllm.testing import ByteTokenizer

END = 256
BYTES = ByteTokenizer(["<end>"])


def scribble(constraint, seed=0, *, tokenizer=BYTES, end=END, most=400, spread=3.0):
    """Return the text of random scores, and whether it ended by itself."""
    rng = np.random.default_rng(seed)
    matcher = constraint.start(tokenizer, frozenset([end]))
    data = b""
    for _ in range(most):
        scores = (rng.standard_normal(tokenizer.n_vocab) * spread).astype(np.float32)
        matcher.mask(scores)
        assert scores.max() > -np.inf, f"a dead end after {data!r}"
        token = int(scores.argmax())
        if token == end:
            return data.decode(), True
        data += tokenizer.id_to_bytes(token)
        if matcher.advance(token):
            return data.decode(), True
    return data.decode(errors="ignore"), False


def accepts(constraint, text, *, tokenizer=BYTES, end=END):
    """Whether the text has the form, byte by byte."""
    matcher = constraint.start(tokenizer, frozenset([end]))
    for byte in text.encode():
        scores = np.zeros(tokenizer.n_vocab, np.float32)
        matcher.mask(scores)
        if scores[byte] != 0:
            return False
        matcher.advance(byte)
    return matcher.may_end
