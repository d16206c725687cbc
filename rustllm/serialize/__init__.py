"""Tokens, arrays, configs and states to bytes and files, and back without a copy.

`dumps` and `dump` write a tree of plain values and arrays; `loads` and `load` read it, arrays as
views of the buffer or of the mapped file. The format is versioned and checksummed, every length in
it is checked before use, and reading it executes nothing.
"""

from rustllm.serialize.atomic import atomic_write
from rustllm.serialize.container import dump, dumps, load, loads
from rustllm.serialize.tree import register_type

__all__ = ["atomic_write", "dump", "dumps", "load", "loads", "register_type"]
