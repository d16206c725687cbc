"""What a transformer has read: its KV cache and the ids, to fork, keep in a file and take back."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rustllm.errors import (
    ArgumentError,
    ContextLengthError,
    FileFormatError,
    OutOfMemoryError,
    OutOfRangeError,
    StateError,
)
from rustllm.models.score_rows import ScoreRows
from rustllm.traits.model import ModelState

if TYPE_CHECKING:
    from rustllm._core.kv_cache import KVCache
    from rustllm.models.transformer import Transformer
    from rustllm.types import PathLikeStr

__all__ = ["State", "in_use"]

KIND = "rustllm.state"
LAYOUT = 1  # of the cache's segments


class State(ModelState):
    """The tokens a model has read, as keys and values of every layer.

    Made by :meth:`Transformer.new_state`.

    Notes
    -----
    One call at a time: a second one on the same state raises `StateError` at once instead of
    waiting. Different states of one model run in any number of threads. :meth:`cancel` may be
    called from any thread.
    """

    def __init__(self, model: Transformer, cache: KVCache, ids: array[int] | None = None) -> None:
        self._model = model
        self._cache = cache
        self._ids = array("i") if ids is None else ids
        self._lock = threading.Lock()
        self._cancel: Any = None
        self._rows = ScoreRows(model.config.n_vocab)

    @property
    def position(self) -> int:
        """Number of tokens read so far."""
        return self._cache.position

    @property
    def context(self) -> int:
        """Number of tokens that fit."""
        return self._cache.context

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens read so far, a copy."""
        return self._ids[: self.position]

    @property
    def kv_dtype(self) -> str:
        """What keys and values are kept in."""
        return self._cache.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, with those that forks share."""
        return self._cache.nbytes

    @property
    def shared_bytes(self) -> int:
        """Bytes of keys and values that this state and others hold together."""
        return self._cache.shared_bytes

    def truncate(self, n: int) -> None:
        """Forget all but the first `n` tokens.

        Raises
        ------
        OutOfRangeError
            There are fewer.
        """
        if not 0 <= n <= self.position:
            raise OutOfRangeError(f"cannot keep {n} of {self.position} tokens")
        with in_use([self]):
            self._cut(n)

    def fork(self) -> Self:
        """Return an independent state with the same past.

        Notes
        -----
        Keys and values are shared in stretches of 128 tokens. Whichever of the two reads more
        tokens first copies the last stretch if it is half filled; so a fork takes microseconds,
        and memory for what is written after it.
        """
        with in_use([self]):
            return type(self)(self._model, self._cache.fork(), self._ids[:])

    def save(self, path: PathLikeStr) -> None:
        """Write the state to a file, which appears whole or not at all.

        The file holds keys and values as they are, in whole stretches without padding, with
        checksums and a fingerprint of the model.

        Raises
        ------
        FileMissingError, FileAccessError
        """
        from rustllm import serialize

        with in_use([self]):
            serialize.dump(
                {
                    "kind": KIND,
                    "layout": LAYOUT,
                    "model": self._model.fingerprint,
                    "kv_dtype": self.kv_dtype,
                    "ids": np.array(self._ids, np.int32),
                    "segments": self._cache.to_arrays(),
                },
                path,
            )

    def load(self, path: PathLikeStr) -> None:
        """Replace the state by one that :meth:`save` wrote for the same model.

        Raises
        ------
        FileMissingError, FileAccessError
        FileFormatError, TruncatedFileError, HashMismatchError, UnsupportedError
            The file is something else or was damaged; the state is unchanged.
        StateError
            It was saved with another model, in another mode, or with another `kv_dtype`.
        ContextLengthError
            It holds more tokens than fit.
        OutOfMemoryError
        """
        from rustllm import serialize

        tree = serialize.load(path)
        with in_use([self]):
            self._take(tree, path)

    def _take(self, tree: Any, path: PathLikeStr) -> None:
        if not isinstance(tree, dict) or tree.get("kind") != KIND:
            raise FileFormatError("this is not a saved state", path=path)
        if tree.get("layout") != LAYOUT:
            raise FileFormatError(
                f"layout {tree.get('layout')!r} of a state, and this reads {LAYOUT}", path=path
            )
        if tree.get("model") != self._model.fingerprint:
            raise StateError(
                "the state was saved with another model",
                path=path,
                hint="load the same file in the same mode (exact or not) as when it was saved",
            )
        # Files written before there was a choice do not say.
        dtype = tree.get("kv_dtype", "float32" if self._model.exact else "float16")
        if dtype != self.kv_dtype:
            raise StateError(
                f"the state was saved with keys and values in {dtype}, not {self.kv_dtype}",
                path=path,
                hint=f"load it into a state made with new_state(kv_dtype={dtype!r})",
            )
        ids, segments = tree.get("ids"), tree.get("segments")
        if not (isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype == np.int32):
            raise FileFormatError("the ids are no row of int32", path=path, key="ids")
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self._model.config.n_vocab:
            raise FileFormatError("an id is outside the vocabulary", path=path, key="ids")
        if len(ids) > self.context:
            raise ContextLengthError(
                f"a state of {len(ids)} tokens does not fit into a context of {self.context}",
                path=path,
                needed=len(ids),
                context=self.context,
                hint="load it into a state made with a larger context",
            )
        if not isinstance(segments, list) or not all(isinstance(s, np.ndarray) for s in segments):
            raise FileFormatError("the segments are no list of arrays", path=path, key="segments")
        try:
            self._cache.from_arrays(segments, len(ids))
        except ValueError as error:
            raise FileFormatError(str(error), path=path, key="segments") from error
        except MemoryError as error:
            raise OutOfMemoryError(str(error), path=path) from error
        self._ids = array("i", ids.tobytes())

    def cancel(self) -> None:
        """Stop the call that is running on this state; it raises `CancelledError`.

        Without a call running this does nothing.
        """
        flag = self._cancel
        if flag is not None:
            flag[0] = 1

    def _cut(self, n: int) -> None:
        """Forget tokens while the state is held."""
        self._cache.truncate(n)
        del self._ids[n:]

    def __repr__(self) -> str:
        return f"<State {self.position} of {self.context} tokens>"


@contextmanager
def in_use(states: Sequence[State], cancel: Any = None) -> Iterator[Any]:
    """Hold states for one call, all of them or none; gives the flag that stops it.

    Raises
    ------
    StateError
        One is in use by another thread.
    ArgumentError
        One appears twice.
    """
    flag = np.zeros(1, np.int32) if cancel is None else cancel
    held: list[State] = []
    try:
        for state in states:
            if not state._lock.acquire(blocking=False):
                if state in held:
                    raise ArgumentError("a state appears twice in one call")
                raise StateError(
                    "the state is in use by another thread",
                    hint="give each thread a state of its own: model.new_state()",
                )
            held.append(state)
            state._cancel = flag
        yield flag
    finally:
        for state in held:
            state._cancel = None
            state._lock.release()
