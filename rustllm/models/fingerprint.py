"""What tells one model from another: a hash of its hyper-parameters and of rows of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["fingerprint"]

ROWS = 16  # of each matrix, evenly spread: training changes every row


def fingerprint(config: Any, weights: Mapping[str, Any], *, exact: bool) -> str:
    """Return a hash that models which compute different things do not share.

    Vectors go in whole, matrices by sixteen rows as their format defines them, so that it does not
    depend on how they are packed. Takes milliseconds.
    """
    values = config.to_dict()
    values.pop("name", None)  # for people: two copies of one model need not share it
    digest = hashlib.sha256(repr((exact, sorted(values.items()))).encode())
    for name in sorted(weights):
        weight = weights[name]
        digest.update(f"{name} {tuple(weight.shape)} {getattr(weight, 'type_id', '')}\n".encode())
        if isinstance(weight, np.ndarray):
            digest.update(np.ascontiguousarray(weight).tobytes())
            continue
        n_rows = weight.shape[0]
        for index in sorted({i * (n_rows - 1) // (ROWS - 1) for i in range(ROWS)}):
            digest.update(weight.row(index).tobytes())
    return digest.hexdigest()
