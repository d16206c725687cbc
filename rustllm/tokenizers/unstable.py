"""Encoding a text that may go on: the ids that are certain, and the ways the rest may end.

The result is that of tiktoken's ``encode_with_unstable``, which it calls unstable itself.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from rustllm._core.split import pretoken_ends
from rustllm._core.text import utf8
from rustllm.errors import UnsupportedError

if TYPE_CHECKING:
    from rustllm.tokenizers.bpe import BpeTokenizer

__all__ = ["completions_of", "split_unstable"]

_SPACES = b" \n\t"


def split_unstable(tokenizer: BpeTokenizer, ids: list[int], tail: str) -> tuple[list[int], bytes]:
    """Split `ids` before the last pretoken, which more text might change.

    Parameters
    ----------
    ids : list of int
        All ids of a text.
    tail : str
        What of the text stands after its last special token.

    Returns
    -------
    certain : list of int
    rest : bytes
        What the other ids spell.
    """
    if not tail:
        return ids, b""
    parts = tokenizer._encoder.parts
    data = utf8(tail)
    if "expression" in parts:
        encoder: Any = tokenizer._encoder
        last = encoder.last_pretoken(data)
        if not last:
            return ids, b""
    elif parts["pattern"] < 0:
        raise UnsupportedError(f"{tokenizer.name} does not cut text into pretokens")
    else:
        ends = [0, *pretoken_ends(parts["pattern"], data)]
        last = data[ends[-2] :]
    n = len(tokenizer._encoder.encode_piece(last))

    def is_space(id: int) -> bool:
        return not tokenizer.id_to_bytes(id).strip(_SPACES)

    # A run of white space may be cut elsewhere once more of it has come.
    if is_space(ids[-n]):
        while n < len(ids) and is_space(ids[-n - 1]):
            n += 1
    return ids[:-n], tokenizer.decode_bytes(ids[-n:])


def completions_of(
    tokenizer: BpeTokenizer, tokens: list[bytes], rest: bytes
) -> set[tuple[int, ...]]:
    """Sequences of ids whose bytes start with `rest`, none longer than it takes.

    Parameters
    ----------
    tokens : list of bytes
        The ordinary tokens, sorted.
    rest : bytes
    """
    found: set[tuple[int, ...]] = set()
    for token in _starting_with(tokens, rest):
        found.add((tokenizer.bytes_to_id(token),))
    for cut in range(1, len(rest)):
        for token in _starting_with(tokens, rest[cut:]):
            whole = rest[:cut] + token
            try:
                ids = tokenizer.encode_ordinary(whole.decode())
            except UnicodeDecodeError:
                ids = tokenizer._encoder.encode_piece(whole).tolist()
            sequence = []
            length = 0
            for id in ids:
                sequence.append(id)
                length += len(tokenizer.id_to_bytes(id))
                if length >= len(rest):
                    break
            found.add(tuple(sequence))
    if len(rest) > 1:
        # White space at the end may turn out to belong to what follows.
        last = rest.decode("utf-8", "replace")[-1]
        width = len(last.encode())
        if last.isspace() and len(rest) > width:
            first = tokenizer._encoder.encode_piece(rest[:-width]).tolist()
            found.add((*first, *tokenizer._encoder.encode_piece(rest[-width:]).tolist()))
    return found


def _starting_with(tokens: list[bytes], prefix: bytes) -> list[bytes]:
    start = bisect_left(tokens, prefix)
    stop = start
    while stop < len(tokens) and tokens[stop].startswith(prefix):
        stop += 1
    return tokens[start:stop]
