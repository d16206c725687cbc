"""What a tokenizer does, with everything that follows from three methods given as defaults."""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from operator import index
from typing import TYPE_CHECKING, Any, Generic, Literal, cast

from rustllm.errors import (
    ArgumentError,
    DisallowedSpecialTokenError,
    OutOfRangeError,
    UnknownTokenError,
    UnsupportedError,
)
from rustllm.traits.token import Token, VocabularyToken

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from rustllm.types import OffsetArray, PathLikeStr, TokenArray, TokenBatch

    TokenT = TypeVar("TokenT", bound=Token, default=Token)
else:
    from typing import TypeVar

    TokenT = TypeVar("TokenT", bound=Token)

__all__ = ["StreamDecoder", "Tokenizer"]

Specials = Literal["all"] | Collection[str]
_NONE: frozenset[str] = frozenset()


def with_ends(
    ids: TokenArray, offsets: OffsetArray, end_id: int | None, dtype: Any
) -> tuple[Any, OffsetArray]:
    """Put `end_id` behind each stretch of `ids`; return them as `dtype`, and the new lengths."""
    import numpy as np

    lengths = np.diff(offsets)
    if end_id is not None:
        ids = np.insert(ids, offsets[1:], np.uint32(end_id))
        lengths = lengths + 1
    if len(ids) and int(ids.max()) > np.iinfo(dtype).max:
        raise OutOfRangeError(f"the id {int(ids.max())} does not fit {dtype}")
    return ids.astype(dtype), lengths


class StreamDecoder:
    """Turns ids into text as they come, holding back bytes of a character not yet whole.

    Parameters
    ----------
    tokenizer : Tokenizer
    errors : {"replace", "strict", "ignore"}
        What becomes of bytes that are no valid UTF-8.

    Notes
    -----
    Holds at most three bytes. Belongs to one thread at a time.

    Examples
    --------
    >>> from rustllm.testing import ByteTokenizer
    >>> decoder = ByteTokenizer().stream_decoder()
    >>> [decoder.push(b) for b in "é!".encode()], decoder.finish()
    (['', 'é', '!'], '')
    """

    def __init__(self, tokenizer: Tokenizer[Any], errors: str = "replace") -> None:
        self._id_to_bytes = tokenizer.id_to_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, id: int) -> str:
        """Take one id, return the text that is now certain; often one character, maybe none.

        Raises
        ------
        UnknownTokenError
            The id is not in the vocabulary; the decoder is unchanged.
        """
        return self._decoder.decode(self._id_to_bytes(id))

    def finish(self) -> str:
        """Return what was held back, and start anew."""
        text = self._decoder.decode(b"", True)
        self._decoder.reset()
        return text


class Tokenizer(ABC, Generic[TokenT]):
    """Text to token ids and back.

    An implementation gives `n_vocab`, `id_to_bytes` and `_encode_ordinary_to_numpy`; every other
    method has a default built on those, which a faster implementation may replace one at a time.
    The type parameter is the class of its tokens (`token`).

    Semantics are tiktoken's: `encode` refuses text that spells a special token unless the call
    says what to do with it, `encode_ordinary` reads everything as text.

    Notes
    -----
    Implementations are immutable once built: any number of threads may use one, also after a fork.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm.traits import Tokenizer
    >>> class Letters(Tokenizer):
    ...     n_vocab = 128
    ...     def id_to_bytes(self, id):
    ...         return bytes([id])
    ...     def _encode_ordinary_to_numpy(self, text):
    ...         return np.frombuffer(text.encode("ascii"), np.uint8).astype(np.uint32)
    >>> tokenizer = Letters()
    >>> tokenizer.encode("abc"), tokenizer.decode([99, 98]), tokenizer.count("four")
    ([97, 98, 99], 'cb', 4)
    """

    # -- what an implementation gives -----------------------------------------------------------

    @property
    @abstractmethod
    def n_vocab(self) -> int:
        """One more than the largest id."""

    @abstractmethod
    def id_to_bytes(self, id: int) -> bytes:
        """Return the bytes that `id` stands for; UnknownTokenError when it is not in use."""

    @abstractmethod
    def _encode_ordinary_to_numpy(self, text: str) -> TokenArray:
        """Encode `text` with no special token recognised, to a fresh ``uint32 [n_tokens]``."""

    # -- what it may add ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the encoding, for people."""
        return type(self).__name__

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Text of each special token and its id."""
        return {}

    @property
    def special_tokens_set(self) -> set[str]:
        """Texts of the special tokens."""
        return set(self.special_tokens)

    def save(self, path: PathLikeStr) -> None:
        """Write the tokenizer to `path` in its own format."""
        raise UnsupportedError(f"{self.name} cannot be saved", path=path)

    # -- text to ids ----------------------------------------------------------------------------

    def encode_to_numpy(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> TokenArray:
        """Encode `text` to ``uint32 [n_tokens]``.

        Parameters
        ----------
        text : str
        allowed_special : "all" or set of str
            Special tokens that become their id where the text spells them.
        disallowed_special : "all" or collection of str
            Special tokens whose spelling is an error; "all" means all that are not allowed. What
            is neither allowed nor disallowed is encoded as ordinary text.

        Raises
        ------
        DisallowedSpecialTokenError
            The text spells a disallowed special token; ``token`` and ``position`` say which, where.
        """
        import numpy as np

        specials = self.special_tokens
        if not specials:
            return self._encode_ordinary_to_numpy(text)
        allowed = set(specials) if allowed_special == "all" else set(allowed_special)
        if disallowed_special == "all":
            disallowed = set(specials) - allowed
        else:
            disallowed = set(disallowed_special)
        if disallowed and (found := _any_of(disallowed).search(text)) is not None:
            raise DisallowedSpecialTokenError(
                f"the text spells the special token {found.group()!r}",
                token=found.group(),
                position=found.start(),
                hint="pass it in allowed_special, or disallowed_special=() to read it as text",
            )
        allowed &= set(specials)
        if not allowed:
            return self._encode_ordinary_to_numpy(text)
        parts: list[TokenArray] = []
        start = 0
        for found in _any_of(allowed).finditer(text):
            if found.start() > start:
                parts.append(self._encode_ordinary_to_numpy(text[start : found.start()]))
            parts.append(np.array([specials[found.group()]], dtype=np.uint32))
            start = found.end()
        if start < len(text) or not parts:
            parts.append(self._encode_ordinary_to_numpy(text[start:]))
        return np.concatenate(parts)

    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> list[int]:
        """Encode `text` to a list; arguments and errors as in `encode_to_numpy`."""
        ids = self.encode_to_numpy(
            text, allowed_special=allowed_special, disallowed_special=disallowed_special
        )
        return cast("list[int]", ids.tolist())

    def encode_ordinary(self, text: str) -> list[int]:
        """Encode `text` to a list, reading special tokens as the text they spell."""
        return cast("list[int]", self._encode_ordinary_to_numpy(text).tolist())

    def encode_ordinary_to_numpy(self, text: str) -> TokenArray:
        """Encode `text` to ``uint32 [n_tokens]``, reading special tokens as text."""
        return self._encode_ordinary_to_numpy(text)

    def encode_batch_flat(
        self,
        texts: Iterable[str],
        num_threads: int | None = None,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> TokenBatch:
        """Encode `texts` to one flat `TokenBatch`.

        Parameters
        ----------
        texts : iterable of str
        num_threads : int, optional
            Threads to use; one by default. The result does not depend on it.
        """
        from rustllm.types import TokenBatch

        def encode(text: str) -> TokenArray:
            return self.encode_to_numpy(
                text, allowed_special=allowed_special, disallowed_special=disallowed_special
            )

        if num_threads is not None and num_threads < 1:
            raise ArgumentError(f"num_threads must be at least 1, got {num_threads}")
        if num_threads is None or num_threads == 1:
            return TokenBatch.from_sequences(map(encode, texts))
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(num_threads) as pool:
            return TokenBatch.from_sequences(pool.map(encode, texts))

    def encode_spans(
        self, data: Any, spans: Any, *, end_id: int | None = None, dtype: str = "uint32"
    ) -> tuple[Any, OffsetArray]:
        """Encode texts that lie as UTF-8 in one buffer, special tokens as text.

        Parameters
        ----------
        data : buffer of bytes
            Holds valid UTF-8 within the spans; not to be written to meanwhile.
        spans : ndarray of int64, shape [n_texts, 2]
            Where each text begins and ends.
        end_id : int, optional
            Put behind the ids of every text.
        dtype : str
            Type of the ids: uint16, uint32 or int32.

        Returns
        -------
        ids : ndarray of `dtype`, shape [n_tokens]
        lengths : ndarray of int64, shape [n_texts]
            Ids of each text, with `end_id`.

        Raises
        ------
        OutOfRangeError
            An id does not fit `dtype`.

        Notes
        -----
        Byte-pair tokenizers read the buffer as it lies, without the GIL and without an object a
        text; this default makes strings for `encode_batch_flat`.
        """
        import numpy as np

        view = memoryview(data)
        texts = [str(view[start:stop], "utf-8") for start, stop in spans.tolist()]
        batch = self.encode_batch_flat(texts, 1, disallowed_special=())
        return with_ends(batch.ids, batch.offsets, end_id, np.dtype(dtype))

    def encode_batch(
        self,
        texts: Iterable[str],
        num_threads: int | None = None,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> list[list[int]]:
        """Encode `texts` to lists; arguments as in `encode_batch_flat`."""
        return self.encode_batch_flat(
            texts,
            num_threads,
            allowed_special=allowed_special,
            disallowed_special=disallowed_special,
        ).tolist()

    def encode_ordinary_batch(
        self, texts: Iterable[str], num_threads: int | None = None
    ) -> list[list[int]]:
        """Encode `texts` to lists, reading special tokens as text."""
        return self.encode_batch(texts, num_threads, disallowed_special=())

    def encode_with_offsets(self, text: str) -> tuple[TokenArray, OffsetArray]:
        """Encode `text`, special tokens as text, with the characters each id comes from.

        Returns
        -------
        ids : ndarray of uint32, shape [n_tokens]
        offsets : ndarray of int64, shape [n_tokens, 2]
            First character of the token and one past its last. A token that holds only part of a
            character's bytes covers the whole character.

        Raises
        ------
        UnsupportedError
            The ids do not spell the text, as with a tokenizer that normalizes; such a tokenizer
            has to say itself where its tokens come from.
        """
        import numpy as np

        ids = self._encode_ordinary_to_numpy(text)
        pieces = [self.id_to_bytes(id) for id in ids.tolist()]
        data = text.encode("utf-8", "surrogatepass")
        if b"".join(pieces) != data:
            raise UnsupportedError(f"the ids of {self.name} do not spell the text they came from")
        # Character that each byte belongs to: one less than the number of leading bytes so far.
        leading = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
        character = np.cumsum(leading, dtype=np.int64) - 1
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends])[: len(pieces)]
        offsets = np.zeros((len(pieces), 2), dtype=np.int64)
        if len(pieces):
            padded = np.append(character, len(text))
            offsets[:, 0] = padded[starts]
            offsets[:, 1] = np.where(ends > starts, padded[ends - 1] + 1, offsets[:, 0])
        return ids, offsets

    def encode_single_token(self, token: str | bytes) -> int:
        """Return the id of a token given whole, special tokens included.

        Raises
        ------
        UnknownTokenError
            No single token spells it.
        """
        if isinstance(token, str):
            if (special := self.special_tokens.get(token)) is not None:
                return special
            token = token.encode("utf-8", "surrogatepass")
        return self.bytes_to_id(token)

    def count(self, text: str) -> int:
        """Return the number of ids of `text`, special tokens read as text."""
        return len(self._encode_ordinary_to_numpy(text))

    def count_batch(self, texts: Iterable[str]) -> OffsetArray:
        """Return the number of ids of each text, ``int64 [n_texts]``."""
        import numpy as np

        return np.fromiter((self.count(text) for text in texts), dtype=np.int64)

    # -- ids to text ----------------------------------------------------------------------------

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that `ids` spell; UnknownTokenError names the first unknown id."""
        id_to_bytes = self.id_to_bytes
        return b"".join([id_to_bytes(index(id)) for id in ids])

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text that `ids` spell; `errors` as in `bytes.decode`."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_batch(self, batch: Iterable[Iterable[int]], errors: str = "replace") -> list[str]:
        """Decode each sequence of ids."""
        return [self.decode(ids, errors) for ids in batch]

    def decode_tokens_bytes(self, ids: Iterable[int]) -> list[bytes]:
        """Return the bytes of each id."""
        return [self.id_to_bytes(index(id)) for id in ids]

    def stream_decoder(self, errors: str = "replace") -> StreamDecoder:
        """Return a decoder that takes ids one at a time and gives whole characters."""
        return StreamDecoder(self, errors)

    # -- the vocabulary -------------------------------------------------------------------------

    def bytes_to_id(self, data: bytes) -> int:
        """Return the id whose bytes are exactly `data`; the smallest when several are.

        The default looks through the whole vocabulary, O(n_vocab); implementations have a table.

        Raises
        ------
        UnknownTokenError
        """
        for id in range(self.n_vocab):
            try:
                if self.id_to_bytes(id) == data:
                    return id
            except UnknownTokenError:  # a hole in the ids
                continue
        raise UnknownTokenError(f"no token is {data!r}", token=data)

    def token(self, id: int) -> TokenT:
        """Return the token `id` as an object."""
        special = id in self.special_tokens.values()
        return cast("TokenT", VocabularyToken(id, self.id_to_bytes(id), special))

    def tokens(self) -> Iterator[TokenT]:
        """Yield the tokens in the order of their ids, passing over ids not in use."""
        for id in range(self.n_vocab):
            try:
                yield self.token(id)
            except UnknownTokenError:
                continue

    def __contains__(self, token: object) -> bool:
        if not isinstance(token, str | bytes):
            return False
        try:
            self.encode_single_token(token)
        except UnknownTokenError:
            return False
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {self.n_vocab} tokens>"


def _any_of(texts: Collection[str]) -> re.Pattern[str]:
    # The longest first: of two specials that begin alike, the text means the one it spells whole.
    return re.compile("|".join(map(re.escape, _longest_first(texts))))


def _longest_first(texts: Collection[str]) -> Sequence[str]:
    return sorted(texts, key=lambda text: (-len(text), text))
