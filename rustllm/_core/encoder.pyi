from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustllm._core.specials import SpecialMatcher
from rustllm._core.view import TextSlice

class Encoder:
    parts: dict[str, Any]
    n_vocab: int
    def __init__(
        self,
        blob: bytes,
        offsets: Any,
        *,
        order: Any = None,
        merges: Any = None,
        listed: bytes | None = None,
        pattern: int = -1,
        by_char: bool = False,
        whole: bool = False,
        fallback: Any = None,
        unknown: int | None = None,
        fuse_unknown: bool = False,
        spaces: bool = False,
        prefix: int = 0,
    ) -> None: ...
    def encode(
        self,
        text: str | TextSlice,
        accept: SpecialMatcher | None = None,
        refuse: SpecialMatcher | None = None,
    ) -> Any: ...
    def encode_list(
        self,
        text: str | TextSlice,
        accept: SpecialMatcher | None = None,
        refuse: SpecialMatcher | None = None,
    ) -> Any: ...
    def count(
        self,
        text: str | TextSlice,
        accept: SpecialMatcher | None = None,
        refuse: SpecialMatcher | None = None,
    ) -> Any: ...
    def encode_batch(
        self,
        texts: Iterable[str | TextSlice],
        accept: SpecialMatcher | None = None,
        refuse: SpecialMatcher | None = None,
        threads: int = 0,
    ) -> Any: ...
    def encode_batch_lists(
        self,
        texts: Iterable[str | TextSlice],
        accept: SpecialMatcher | None = None,
        refuse: SpecialMatcher | None = None,
        threads: int = 0,
    ) -> Any: ...
    def count_batch(
        self,
        texts: Iterable[str | TextSlice],
        accept: SpecialMatcher | None = None,
        refuse: SpecialMatcher | None = None,
        threads: int = 0,
    ) -> Any: ...
    def encode_spans(
        self,
        data: Any,
        spans: NDArray[np.int64],
        accept: SpecialMatcher | None = None,
        threads: int = 1,
        end: int | None = None,
        dtype: Any = ...,
    ) -> tuple[NDArray[Any], NDArray[np.int64]]: ...
    def encode_bytes(self, data: bytes) -> NDArray[np.uint32]: ...
    def encode_piece(self, piece: bytes, reference: bool = False) -> NDArray[np.uint32]: ...
    def id_to_bytes(self, id: int) -> bytes: ...
    def bytes_to_id(self, data: bytes) -> int: ...
    def is_listed(self, id: int) -> bool: ...
    def tables(self) -> tuple[bytes, NDArray[np.uint32]]: ...
    def merges(self) -> NDArray[np.uint32]: ...
    def decode(self, ids: Iterable[int]) -> bytes: ...
    def decode_text(self, ids: Iterable[int], errors: str) -> str: ...
