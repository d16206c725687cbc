"""What keys and values can be kept in, by name: apart from the engine, to be asked first."""

from __future__ import annotations

from rustllm.errors import ArgumentError

__all__ = ["KV_DTYPES", "checked_kv_dtype"]

#: As `_core.kv_cache` knows them.
KV_DTYPES = ("float32", "float16", "bfloat16", "int8")


def checked_kv_dtype(name: str) -> str:
    """Return the name of what keys and values can be kept in, or raise `ArgumentError`."""
    if name not in KV_DTYPES:
        raise ArgumentError(
            f"keys and values cannot be kept in {name!r}",
            kv_dtype=name,
            hint=f"there are {', '.join(KV_DTYPES)}",
        )
    return name
