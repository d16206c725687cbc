"""Tokens, arrays, configs and states to bytes and files, and back without a copy.

`dumps` and `dump` write a tree of plain values and arrays; `loads` and `load` read it, arrays as
views of the buffer or of the mapped file. The format is versioned and checksummed, every length in
it is checked before use, and reading it executes nothing.
"""

from typing import TYPE_CHECKING

from rustllm._lazy import lazy_names

# Who writes a file whole, as trainers do, need not wait for numpy.
_PUBLIC = {
    "atomic_write": "rustllm.serialize.atomic",
    "dump": "rustllm.serialize.container",
    "dumps": "rustllm.serialize.container",
    "load": "rustllm.serialize.container",
    "loads": "rustllm.serialize.container",
    "register_type": "rustllm.serialize.tree",
}

__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from rustllm.serialize.atomic import atomic_write as atomic_write
    from rustllm.serialize.container import dump as dump
    from rustllm.serialize.container import dumps as dumps
    from rustllm.serialize.container import load as load
    from rustllm.serialize.container import loads as loads
    from rustllm.serialize.tree import register_type as register_type

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
