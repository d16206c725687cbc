"""Pairs found at load, from tokens and their order alone, merge as looking up bytes does."""

import random

import pytest

from rustllm.tokenizers.encoding import Encoding


def by_definition(ranks, data):
    """Merge the two neighbours whose bytes together have the lowest rank, the leftmost first."""
    parts = [bytes([b]) for b in data]
    if bytes(data) in ranks:
        return [ranks[bytes(data)]]
    while len(parts) > 1:
        best, at = min(
            (ranks.get(parts[i] + parts[i + 1], 1 << 60), i) for i in range(len(parts) - 1)
        )
        if best == 1 << 60:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ranks[part] for part in parts]


def vocabulary(seed, letters, n):
    """Tokens made as training makes them: each of two that were there before it."""
    pick = random.Random(seed)
    tokens = [bytes([b]) for b in range(256)]
    known = set(tokens)
    pool = [letter.encode() for letter in letters]
    while len(tokens) < 256 + n:
        joined = pick.choice(pool) + pick.choice(pool)
        if joined not in known and len(joined) <= 40:
            known.add(joined)
            tokens.append(joined)
            pool.append(joined)
    return tokens


@pytest.mark.parametrize("order", ["trained", "some left out", "shuffled", "longest first"])
@pytest.mark.parametrize("seed", range(8))
def test_encoding_is_what_merging_by_bytes_gives(seed, order):
    pick = random.Random(seed)
    letters = "abcdefgh"[: 2 + seed % 4]
    tokens = vocabulary(seed, letters, 15 + 40 * seed)
    longer = tokens[256:]
    if order == "some left out":
        longer = [token for token in longer if pick.random() < 0.7]
    elif order == "shuffled":
        pick.shuffle(longer)
    elif order == "longest first":
        longer.sort(key=len, reverse=True)
    ranks = {token: rank for rank, token in enumerate([*tokens[:256], *longer])}
    enc = Encoding("learnt", pat_str="cl100k", mergeable_ranks=ranks, special_tokens={})
    for n in [*range(1, 30), 61, 62, 63, 90, 100, 200]:
        data = "".join(pick.choices(letters, k=n)).encode()
        assert enc.encode_ordinary(data.decode()) == by_definition(ranks, data)
    for token in pick.sample(longer, min(60, len(longer))):
        for data in (token + token, token + pick.choice(longer), b"a" + token):
            assert enc.encode_ordinary(data.decode()) == by_definition(ranks, data)
