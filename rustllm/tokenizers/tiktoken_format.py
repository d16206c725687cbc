"""tiktoken's files: a line a token, its bytes in base64 and its rank, which is also its id."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm._core.encoder import Encoder
from rustllm._core.rank_file import parse_ranks
from rustllm._core.split import pattern_id
from rustllm.errors import ArgumentError, FileFormatError

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["encoder_from_ranks", "read_ranks", "write_ranks"]

Ranks = tuple[bytes, "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]


def read_ranks(data: bytes, path: PathLikeStr | None = None) -> Ranks:
    """Read a file of ranks.

    Returns
    -------
    blob : bytes
        All tokens end to end, by rank.
    ends : ndarray of uint32 [n + 1]
    order : ndarray of uint32
        The ranks that there are, ascending.

    Raises
    ------
    FileFormatError
        A line is no base64 and a number, or repeats a rank; ``line`` counts from 1.
    """
    blob, ends, order, bad = parse_ranks(data)
    if bad:
        raise FileFormatError(
            "a line is not the base64 of a token and its rank, or repeats a rank",
            path=path,
            line=bad,
        )
    if not len(order):
        raise FileFormatError("there is no token in the file", path=path)
    return blob, ends, order


def write_ranks(tokens: Mapping[bytes, int]) -> bytes:
    """Return the file of the ranks of `tokens`.

    >>> write_ranks({b"a": 0, b"ab": 1})
    b'YQ== 0\\nYWI= 1\\n'
    """
    ordered = sorted(tokens.items(), key=lambda item: item[1])
    return b"".join(b"%s %d\n" % (base64.b64encode(t), rank) for t, rank in ordered)


def encoder_from_ranks(
    ranks: Ranks, special_tokens: Mapping[str, int], pattern: str | None
) -> Encoder:
    """Build the encoder of ranks, special tokens and the name of a pattern; None does not cut text.

    Raises
    ------
    ArgumentError
        A special token has the id of an ordinary one.
    """
    blob, ends, order = ranks
    n = len(ends) - 1
    top = max((id + 1 for id in special_tokens.values()), default=0)
    lengths = np.zeros(max(n, top), dtype=np.int64)
    lengths[:n] = np.diff(ends.astype(np.int64))
    after = []
    # The first spelling of an id is what it decodes to.
    spelled: dict[int, bytes] = {}
    for text, id in special_tokens.items():
        if id < 0:
            raise ArgumentError(f"special token {text!r} has the negative id {id}")
        spelled.setdefault(id, text.encode("utf-8", "surrogatepass"))
    for id in sorted(spelled):
        if lengths[id]:
            raise ArgumentError(f"special token {spelled[id]!r} has the id of another token, {id}")
        lengths[id] = len(spelled[id])
        if id >= n:
            after.append(spelled[id])
        else:
            blob = blob[: int(ends[id])] + spelled[id] + blob[int(ends[id]) :]
            ends = np.concatenate([ends[: id + 1], ends[id + 1 :] + np.uint32(len(spelled[id]))])
    offsets = np.zeros(len(lengths) + 1, dtype=np.uint32)
    np.cumsum(lengths, out=offsets[1:])
    return Encoder(
        blob + b"".join(after),
        offsets,
        order=order,
        pattern=-1 if pattern is None else pattern_id(pattern),
        whole=True,
    )
