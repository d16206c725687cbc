"""The byte-pair tokenizer: every method of the interface, straight from the compiled encoder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from rustllm._core.encoder import Encoder
from rustllm._core.specials import SpecialMatcher
from rustllm.errors import (
    ArgumentError,
    DisallowedSpecialTokenError,
    OutOfRangeError,
    TokenizerError,
    UnknownTokenError,
    UnsupportedError,
)
from rustllm.traits import Token, Tokenizer

if TYPE_CHECKING:
    from rustllm._core.view import TextSlice
    from rustllm.tokenizers.stream_encoder import StreamEncoder
    from rustllm.types import OffsetArray, TokenArray, TokenBatch

    Text = str | TextSlice

__all__ = ["BpeTokenizer"]

Specials = Literal["all"] | Collection[str]
_NONE: frozenset[str] = frozenset()
_ALL: Literal["all"] = "all"
_MAX_MATCHERS = 64


class BpeTokenizer(Tokenizer[Token]):
    """Byte-pair tokenizer over a fixed vocabulary.

    Most callers get one from `rustllm.get_encoding`, `rustllm.load_tokenizer` or
    `rustllm.BpeTrainer`.

    Parameters
    ----------
    encoder : Encoder
        The compiled tables.
    name : str
    special_tokens : mapping of str to int
        Recognised only where a call allows it.
    added_tokens : mapping of str to int
        Recognised always, before anything else (``user-defined`` in GGUF).
    add_bos, add_eos : bool
        Whether the model wants its first and last token around a prompt; nothing here adds them by
        itself.
    bos_id, eos_id : int, optional
    end_ids : iterable of int
        Ids that end a generation, `eos_id` among them.

    Notes
    -----
    Immutable: any number of threads may use one, also after a fork, and it can be pickled. Encoding
    takes time linear in the text but for pretokens of more than 96 symbols, which take O(n log n),
    and releases the GIL.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        name: str = "bpe",
        special_tokens: Mapping[str, int] | None = None,
        added_tokens: Mapping[str, int] | None = None,
        bos_id: int | None = None,
        eos_id: int | None = None,
        end_ids: Iterable[int] = (),
        add_bos: bool = False,
        add_eos: bool = False,
    ) -> None:
        self._encoder = encoder
        self._name = name
        self._special = dict(special_tokens or {})
        self._added = dict(added_tokens or {})
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.end_ids = frozenset(end_ids) | ({eos_id} if eos_id is not None else set())
        self.add_bos = add_bos
        self.add_eos = add_eos
        self._matchers: dict[frozenset[str], SpecialMatcher] = {}
        self._always = _matcher(self._added) if self._added else None
        self._refuse_all = _matcher(self._special) if self._special else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            type(self),
            self._encoder,
            {
                "name": self._name,
                "special_tokens": self._special,
                "added_tokens": self._added,
                "bos_id": self.bos_id,
                "eos_id": self.eos_id,
                "end_ids": self.end_ids,
                "add_bos": self.add_bos,
                "add_eos": self.add_eos,
            },
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def n_vocab(self) -> int:
        return self._encoder.n_vocab

    @property
    def max_token_value(self) -> int:
        """The largest id."""
        return self._encoder.n_vocab - 1

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return MappingProxyType(self._special)

    @property
    def special_tokens_set(self) -> set[str]:
        return set(self._special)

    @property
    def added_tokens(self) -> Mapping[str, int]:
        """Text of each token that is recognised wherever text spells it, and its id."""
        return MappingProxyType(self._added)

    @property
    def eot_token(self) -> int:
        """Id of ``<|endoftext|>``."""
        return self._special["<|endoftext|>"]

    def is_special_token(self, token: int) -> bool:
        """Whether the id `token` is a special token."""
        return token in self._special_ids

    @property
    def _special_ids(self) -> frozenset[int]:
        ids = self.__dict__.get("_ids_of_specials")
        if ids is None:
            ids = self.__dict__["_ids_of_specials"] = frozenset(self._special.values())
        return cast("frozenset[int]", ids)

    # -- text to ids ----------------------------------------------------------------------------

    def _matchers_for(
        self, allowed: Literal["all"] | AbstractSet[str], disallowed: Specials
    ) -> tuple[SpecialMatcher | None, SpecialMatcher | None]:
        special = self._special
        if not special:
            return self._always, None
        taken = special.keys() if allowed == "all" else special.keys() & allowed
        if disallowed == "all":
            refused: AbstractSet[str] = special.keys() - taken
        else:
            if isinstance(disallowed, str):
                raise TypeError("disallowed_special is 'all' or a collection of strings")
            refused = frozenset(disallowed)
        return (
            self._matcher_of(frozenset(taken), True) if taken else self._always,
            self._matcher_of(frozenset(refused), False) if refused else None,
        )

    def _matcher_of(self, texts: frozenset[str], with_added: bool) -> SpecialMatcher:
        if not with_added and self._refuse_all is not None and texts == self._special.keys():
            return self._refuse_all
        key = texts | {""} if with_added else texts
        matcher = self._matchers.get(key)
        if matcher is None:
            tokens = {text: self._special.get(text, 0) for text in texts}
            matcher = _matcher({**self._added, **tokens} if with_added else tokens)
            if len(self._matchers) >= _MAX_MATCHERS:
                self._matchers.clear()
            self._matchers[key] = matcher
        return matcher

    def _refused(self, found: tuple[int, ...], text: Text) -> DisallowedSpecialTokenError:
        position, text = found[1], str(text)
        spelled = (t for t in sorted(self._special, key=len, reverse=True))
        token = next((t for t in spelled if text.startswith(t, position)), None)
        return DisallowedSpecialTokenError(
            f"the text spells the special token {token!r}",
            token=token,
            position=position,
            hint="pass it in allowed_special, or disallowed_special=() to read it as text",
        )

    def _encode(
        self,
        method: Any,
        text: Text,
        allowed: Literal["all"] | AbstractSet[str],
        disallowed: Specials,
    ) -> Any:
        if allowed is _NONE and disallowed == "all":
            accept, refuse = self._always, self._refuse_all
        else:
            accept, refuse = self._matchers_for(allowed, disallowed)
        try:
            result = method(text, accept, refuse)
        except UnicodeError as error:
            raise TokenizerError(str(error)) from None
        if type(result) is tuple:
            raise self._refused(result, text)
        return result

    def _encode_ordinary_to_numpy(self, text: Text) -> TokenArray:
        return cast("TokenArray", self._encode(self._encoder.encode, text, _NONE, ()))

    def encode_to_numpy(
        self,
        text: Text,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = _ALL,
    ) -> TokenArray:
        if allowed_special is _NONE and disallowed_special is _ALL:
            # As below, without the calls between, which cost as much as a line of text.
            try:
                found = self._encoder.encode(text, self._always, self._refuse_all)
            except UnicodeError as error:
                raise TokenizerError(str(error)) from None
            if type(found) is tuple:
                raise self._refused(found, text)
        else:
            found = self._encode(self._encoder.encode, text, allowed_special, disallowed_special)
        ids: TokenArray = found
        return ids

    def encode(
        self,
        text: Text,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> list[int]:
        return cast(
            "list[int]",
            self._encode(self._encoder.encode_list, text, allowed_special, disallowed_special),
        )

    def encode_ordinary(self, text: Text) -> list[int]:
        try:
            ids: list[int] = self._encoder.encode_list(text, self._always)
        except UnicodeError as error:
            raise TokenizerError(str(error)) from None
        return ids

    def count(self, text: Text) -> int:
        return cast(int, self._encode(self._encoder.count, text, _NONE, ()))

    def _batch(
        self,
        method: Any,
        texts: Iterable[Text],
        num_threads: int | None,
        allowed: Literal["all"] | AbstractSet[str],
        disallowed: Specials,
    ) -> Any:
        if num_threads is not None and num_threads < 1:
            raise ArgumentError(f"num_threads must be at least 1, got {num_threads}")
        if isinstance(texts, str):
            raise TypeError("a batch is an iterable of strings, not one string")
        held = texts if isinstance(texts, list) else list(texts)
        accept, refuse = self._matchers_for(allowed, disallowed)
        try:
            result = method(held, accept, refuse, num_threads or 0)
        except UnicodeError as error:
            raise TokenizerError(str(error)) from None
        if type(result) is tuple and len(result) == 3:
            raise self._refused(result, held[result[2]])
        return result

    def encode_batch_flat(
        self,
        texts: Iterable[Text],
        num_threads: int | None = None,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> TokenBatch:
        from rustllm.types import TokenBatch

        ids, offsets = self._batch(
            self._encoder.encode_batch, texts, num_threads, allowed_special, disallowed_special
        )
        return TokenBatch(ids, offsets)

    def encode_spans(
        self, data: Any, spans: Any, *, end_id: int | None = None, dtype: str = "uint32"
    ) -> tuple[Any, OffsetArray]:
        import numpy as np

        try:
            ids, lengths = self._encoder.encode_spans(
                data, spans, self._always, 1, end_id, np.dtype(dtype)
            )
        except UnicodeError as error:
            raise TokenizerError(str(error)) from None
        except OverflowError as error:
            raise OutOfRangeError(str(error)) from None
        return ids, lengths

    def encode_batch(
        self,
        texts: Iterable[Text],
        num_threads: int | None = None,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> list[list[int]]:
        return cast(
            "list[list[int]]",
            self._batch(
                self._encoder.encode_batch_lists,
                texts,
                num_threads,
                allowed_special,
                disallowed_special,
            ),
        )

    def count_batch(self, texts: Iterable[Text], num_threads: int | None = None) -> OffsetArray:
        return cast(
            "OffsetArray",
            self._batch(self._encoder.count_batch, texts, num_threads, _NONE, ()),
        )

    def encode_with_offsets(self, text: str) -> tuple[TokenArray, OffsetArray]:
        import numpy as np

        from rustllm._core.text import utf8

        ids = self._encode_ordinary_to_numpy(text)
        parts = self._encoder.parts
        data = utf8(text)
        added = 0
        if parts["spaces"]:
            data = data.replace("\u2581".encode(), b" ")
            added = 1 if parts["prefix"] and data else 0
            data = b" " * added + data
        lengths = np.diff(np.asarray(parts["offsets"], dtype=np.int64))[ids]
        ends = np.cumsum(lengths)
        if (int(ends[-1]) if len(ends) else 0) != len(data):
            raise UnsupportedError(f"the ids of {self._name} do not spell the text they came from")
        # Character of each byte: one less than the number of first bytes so far.
        leading = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
        character = np.cumsum(leading, dtype=np.int64) - 1 - added
        offsets = np.zeros((len(ids), 2), dtype=np.int64)
        if len(ids):
            offsets[:, 0] = np.maximum(character[ends - lengths], 0)
            offsets[:, 1] = character[ends - 1] + 1
        return ids, offsets

    def encode_with_unstable(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> tuple[list[int], list[list[int]]]:
        """Encode a text that may go on.

        Returns
        -------
        certain : list of int
            Ids that stay whatever follows.
        completions : list of list of int
            Ways in which the rest may be encoded, each just long enough to hold it.

        Notes
        -----
        As in tiktoken, which does not promise what this gives to stay. Far slower than `encode`.
        """
        from rustllm.tokenizers.unstable import completions_of, split_unstable

        ids = self.encode(
            text, allowed_special=allowed_special, disallowed_special=disallowed_special
        )
        allowed = self._special.keys() if allowed_special == "all" else set(allowed_special)
        tail, after = text, 0
        for token in allowed & self._special.keys():
            after = max(after, text.rfind(token) + len(token) if token in text else 0)
        tail = text[after:]
        certain, rest = split_unstable(self, ids, tail)
        if not rest:
            return certain, []
        found = completions_of(self, self.token_byte_values(), rest)
        return certain, [list(sequence) for sequence in sorted(found)]

    def stream_encoder(
        self,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] = _NONE,
        disallowed_special: Specials = "all",
    ) -> StreamEncoder:
        """An encoder for text that arrives in pieces: ``push(text)`` and ``finish()`` give ids."""
        from rustllm.tokenizers.stream_encoder import StreamEncoder

        return StreamEncoder(
            self, allowed_special=allowed_special, disallowed_special=disallowed_special
        )

    # -- ids to text ----------------------------------------------------------------------------

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        try:
            return self._encoder.decode(tokens)
        except KeyError as error:
            raise self._unknown(error.args[0]) from None

    def decode(self, tokens: Iterable[int], errors: str = "replace") -> str:
        try:
            return self._encoder.decode_text(tokens, errors)
        except KeyError as error:
            raise self._unknown(error.args[0]) from None

    def id_to_bytes(self, id: int) -> bytes:
        try:
            return self._encoder.id_to_bytes(id)
        except (KeyError, OverflowError):
            raise self._unknown(id) from None

    def bytes_to_id(self, data: bytes) -> int:
        try:
            return self._encoder.bytes_to_id(data)
        except KeyError:
            raise UnknownTokenError(f"no token is {data!r}", token=data) from None

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        token = text_or_bytes
        text = token if isinstance(token, str) else token.decode("utf-8", "replace")
        data = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
        for tokens in (self._special, self._added):
            id = tokens.get(text)
            if id is not None and text.encode("utf-8", "surrogatepass") == data:
                return id
        return self.bytes_to_id(data)

    def decode_single_token_bytes(self, token: int) -> bytes:
        """Bytes of one id; UnknownTokenError when it is not in use."""
        return self.id_to_bytes(token)

    def decode_tokens_bytes(self, tokens: Iterable[int]) -> list[bytes]:
        return super().decode_tokens_bytes(tokens)

    def decode_with_offsets(self, tokens: Iterable[int]) -> tuple[str, list[int]]:
        """Text of `tokens` and the index of the character in which each begins.

        Raises
        ------
        UnicodeDecodeError
            The bytes are not UTF-8.
        """
        pieces = self.decode_tokens_bytes(tokens)
        offsets = []
        n = 0
        for piece in pieces:
            # A token that begins inside a character belongs to that one.
            offsets.append(max(0, n - (0x80 <= piece[0] < 0xC0)))
            n += sum(not 0x80 <= byte < 0xC0 for byte in piece)
        return b"".join(pieces).decode("utf-8", "strict"), offsets

    def decode_batch(
        self,
        batch: Iterable[Iterable[int]],
        errors: str = "replace",
        num_threads: int | None = None,
    ) -> list[str]:
        return [self.decode(ids, errors) for ids in batch]

    def decode_bytes_batch(
        self, batch: Iterable[Iterable[int]], num_threads: int | None = None
    ) -> list[bytes]:
        """Bytes of each sequence of ids. `num_threads` is tiktoken's; one thread is faster."""
        return [self.decode_bytes(ids) for ids in batch]

    def token_byte_values(self) -> list[bytes]:
        """Bytes of every token that text can give, sorted."""
        import numpy as np

        blob, ends = self._encoder.tables()
        bounds = ends.tolist()
        used = np.flatnonzero(np.diff(ends)).tolist()
        listed = self._encoder.is_listed
        return sorted(blob[bounds[id] : bounds[id + 1]] for id in used if listed(id))

    def _encode_single_piece(self, text_or_bytes: str | bytes) -> list[int]:
        data = text_or_bytes.encode() if isinstance(text_or_bytes, str) else text_or_bytes
        try:
            return cast("list[int]", self._encoder.encode_piece(data).tolist())
        except UnicodeError as error:
            raise TokenizerError(str(error)) from None

    def _encode_only_native_bpe(self, text: str) -> list[int]:
        return self.encode_ordinary(text)

    def _encode_bytes(self, text: bytes) -> list[int]:
        data = text
        try:
            return self.encode_ordinary(data.decode())
        except UnicodeDecodeError as error:
            # As tiktoken: what follows the valid text belongs to its last pretoken.
            from rustllm.tokenizers.unstable import split_unstable

            valid = data[: error.start].decode()
            certain, rest = split_unstable(self, self.encode_ordinary(valid), valid)
            last = self._encoder.encode_piece(rest + data[error.start :])
            return certain + cast("list[int]", last.tolist())

    def _unknown(self, id: object) -> UnknownTokenError:
        return UnknownTokenError(
            f"id {id} is not in the vocabulary of {self._name}, which has {self.n_vocab} ids",
            token=id,
        )


def _matcher(tokens: Mapping[str, int]) -> SpecialMatcher:
    return SpecialMatcher({text.encode("utf-8", "surrogatepass"): i for text, i in tokens.items()})


def _rebuild(cls: type[BpeTokenizer], encoder: Encoder, rest: dict[str, Any]) -> BpeTokenizer:
    tokenizer = cls.__new__(cls)
    BpeTokenizer.__init__(tokenizer, encoder, **rest)
    return tokenizer
