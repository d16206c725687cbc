"""Item types flow through iterators, maps and streams."""

from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
from expect import raises

from rustllm import TokenIterator, chunks, parallel_map, stream, windows
from rustllm.iterators import ArrayGroups, batched
from rustllm.parallel import ParallelMap
from rustllm.types import TokenArray

ids: TokenArray = np.arange(10, dtype=np.uint32)

assert_type(windows([1, 2, 3], 2), Iterator[tuple[int, ...]])
assert_type(windows(ids, 2), ArrayGroups[TokenArray])
assert_type(windows(ids, 2)[0], TokenArray)
assert_type(chunks("abc", 2), Iterator[tuple[str, ...]])
assert_type(chunks(b"abc", 2), ArrayGroups[np.ndarray[Any, Any]])
assert_type(list(batched(["a"], 2)), list[list[str]])

assert_type(TokenIterator(ids), TokenIterator[int])
assert_type(TokenIterator(["a"]), TokenIterator[str])
assert_type(TokenIterator(ids).map(str).filter(None), TokenIterator[str])
assert_type(TokenIterator(ids).zip("abc"), TokenIterator[tuple[int, str]])
assert_type(TokenIterator(ids).fold(lambda total, id: total + id, 0.5), float)
assert_type(TokenIterator("ab").to_list(), list[str])
with raises(TypeError):
    TokenIterator("ab").map(abs).to_list()  # E: arg-type
with raises(AttributeError):
    TokenIterator(ids).collect()  # E: attr-defined

assert_type(parallel_map(len, ["a"]), ParallelMap[int])
assert_type(next(parallel_map(len, ["a"])), int)
with raises(TypeError):
    list(parallel_map(len, [1]))  # E: arg-type
with raises(ValueError):
    parallel_map(len, ["a"], mode="fibres")  # E: arg-type


def lengths(texts: Iterator[str]) -> Iterator[int]:
    return map(len, texts)


assert_type(stream.pipe(["a"], lengths), Iterator[int])
with raises(TypeError):
    list(stream.pipe([1], lengths))  # E: arg-type
assert_type(next(stream.merge("ab", ["c"])), str)
