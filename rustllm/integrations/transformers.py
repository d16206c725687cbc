"""Our tokenizers as ``transformers`` fast tokenizers: models, pipelines and collators take them.

from rustllm.integrations.transformers import fast_tokenizer

tokenizer = fast_tokenizer(rustllm.load_tokenizer("tokenizer.json"), pad_token="<pad>")
batch = tokenizer(["one text", "another"], padding=True, return_tensors="pt")
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from rustllm.errors import ArgumentError
from rustllm.integrations import need
from rustllm.tokenizers.hf_api import Encoding, HfTokenizer
from rustllm.tokenizers.postprocessors import TokenRow

__all__ = ["fast_tokenizer"]

_MARKER = (1 << 31) - 1


def fast_tokenizer(tokenizer: Any, **options: Any) -> Any:
    """Make a ``transformers`` fast tokenizer that encodes and decodes with `tokenizer`.

    Parameters
    ----------
    tokenizer : Tokenizer
        Read from a ``tokenizer.json``, or byte-level BPE from any file.
    **options
        What ``PreTrainedTokenizerFast`` takes: ``bos_token``, ``eos_token``, ``pad_token``,
        ``unk_token``, ``chat_template``, ``model_max_length``, ``padding_side``, ...

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        With everything that one has: tensors, pairs, offsets, words, truncation, overflow, chat
        templates, added tokens, ``save_pretrained``.

    Raises
    ------
    MissingDependencyError
        ``transformers`` or ``tokenizers`` is not installed.
    UnsupportedError
        The vocabulary cannot be written as ``tokenizer.json``.

    Notes
    -----
    Truncation and padding of a call belong to the thread that makes it, so threads may share the
    tokenizer. Ids alone come from the compiled encoder; offsets and words are worked out when they
    are first looked at.
    """
    transformers = need("transformers", "transformers")
    tokenizers = need("tokenizers", "transformers")
    backend = _Backend(tokenizers.Tokenizer.from_str(json.dumps(_content_of(tokenizer))))
    given = options.setdefault("model_input_names", ["input_ids", "attention_mask"])
    if not isinstance(given, list):
        raise ArgumentError("model_input_names is a list", key="model_input_names")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **options)


def _content_of(tokenizer: Any) -> dict[str, Any]:
    """The content of the ``tokenizer.json`` that says what `tokenizer` does."""
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    pipeline = getattr(tokenizer, "pipeline", None)
    if pipeline is not None:
        return cast("dict[str, Any]", pipeline.content)
    from rustllm.tokenizers.byte_bpe import byte_bpe_of
    from rustllm.tokenizers.save_formats import tokenizer_json_of

    return tokenizer_json_of(byte_bpe_of(tokenizer))


class _Backend:
    """Stands where ``transformers`` keeps its ``tokenizers.Tokenizer``.

    The vocabulary, added tokens and saving are the real one's; text goes through ours. Whatever may
    change the real one has ours built anew at the next call.
    """

    def __init__(self, inner: Any) -> None:
        self.__dict__.update(_inner=inner, _made=None, _call=threading.local())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._inner, name)
        if name.startswith(("add_", "train")):
            self.__dict__["_made"] = None
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)
        self.__dict__["_made"] = None

    def __deepcopy__(self, memo: Any) -> _Backend:
        return _Backend(copy.deepcopy(self._inner, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return _Backend, (self._inner,)

    # -- settings of a call: kept by thread, where the real one shares them ---------------------

    def _setting(self, name: str) -> Any:
        return getattr(self._call, name, getattr(self._inner, name))

    @property
    def truncation(self) -> Any:
        return self._setting("truncation")

    @property
    def padding(self) -> Any:
        return self._setting("padding")

    def enable_truncation(
        self,
        max_length: int,
        stride: int = 0,
        strategy: str = "longest_first",
        direction: str = "right",
    ) -> None:
        self._call.truncation = {
            "max_length": max_length,
            "stride": stride,
            "strategy": strategy,
            "direction": direction,
        }

    def no_truncation(self) -> None:
        self._call.truncation = None

    def enable_padding(self, **options: Any) -> None:
        usual = {"direction": "right", "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
        self._call.padding = {**usual, "length": None, "pad_to_multiple_of": None, **options}

    def no_padding(self) -> None:
        self._call.padding = None

    # -- text -----------------------------------------------------------------------------------

    @property
    def _ours(self) -> _Made:
        made = self.__dict__["_made"]
        if made is None:
            made = self.__dict__["_made"] = _Made(self._inner.to_str())
        return cast("_Made", made)

    def encode_batch(
        self, input: Sequence[Any], add_special_tokens: bool = True, is_pretokenized: bool = False
    ) -> list[Encoding]:
        ours = self._ours
        split: bool = self._inner.encode_special_tokens
        truncation, padding = self.truncation, self.padding
        fast = not is_pretokenized and not split and all(isinstance(text, str) for text in input)
        if fast:
            encodings = ours.quick(input, add_special_tokens, truncation)
        else:
            encodings = ours.slow.encode_batch(
                input,
                is_pretokenized,
                add_special_tokens,
                split_special_tokens=split,
                **(truncation or {}),
            )
        if padding is not None and encodings:
            length = padding["length"] or max(map(len, encodings))
            if multiple := padding["pad_to_multiple_of"]:
                length += -length % multiple
            for encoding in encodings:
                encoding._pad(
                    length,
                    padding["direction"],
                    padding["pad_id"],
                    padding["pad_type_id"],
                    padding["pad_token"],
                )
        return encodings

    def encode(
        self,
        sequence: Any,
        pair: Any = None,
        is_pretokenized: bool = False,
        add_special_tokens: bool = True,
    ) -> Encoding:
        item = sequence if pair is None else (sequence, pair)
        return self.encode_batch([item], add_special_tokens, is_pretokenized)[0]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        return cast(str, self._inner.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def decode_batch(self, sequences: Iterable[Any], skip_special_tokens: bool = True) -> list[str]:
        return [self.decode(ids, skip_special_tokens) for ids in sequences]


class _Made:
    """Our tokenizer for one state of the real one."""

    def __init__(self, content: str) -> None:
        from rustllm.tokenizers.tokenizer_json import from_bytes

        made: Any = from_bytes(content.encode())
        self.tokenizer = made
        self.slow = HfTokenizer(made.pipeline)
        self.frames = {add: self._frame(add) for add in (False, True)}

    def _frame(self, add_special_tokens: bool) -> tuple[TokenRow, TokenRow] | None:
        """What the post-processor puts before and behind a text; None if it does more than that."""
        process = self.slow._pipeline.post_processor
        if process is None:
            return TokenRow(), TokenRow()
        marked = TokenRow([_MARKER], ["x"], [(0, 1)], [0], [0], [0], [0])
        rows = process([marked], add_special_tokens)
        whole = TokenRow()
        for row in rows:
            whole.extend(row)
        if whole.ids.count(_MARKER) != 1:
            return None
        at = whole.ids.index(_MARKER)
        if whole.type_ids[at] != 0:
            return None
        return whole.slice(0, at), whole.slice(at + 1, len(whole.ids))

    def quick(
        self, texts: Sequence[str], add_special_tokens: bool, truncation: Any
    ) -> list[Encoding]:
        """Ids from the compiled encoder, the rest when it is asked for."""
        frame = self.frames[add_special_tokens]
        options = truncation or {}
        if frame is None:
            return self.slow.encode_batch(texts, False, add_special_tokens, **options)
        before, behind = frame
        room = None
        if truncation is not None:
            room = truncation["max_length"] - len(before.ids) - len(behind.ids)
        encodings: list[Encoding] = []
        for text, ids in zip(
            texts, self.tokenizer.encode_batch(list(texts), allowed_special="all"), strict=True
        ):

            def full(text: str = text) -> Encoding:
                return self.slow.encode(text, None, False, add_special_tokens, **options)

            if room is not None and len(ids) > room:
                encodings.append(full())
            else:
                encodings.append(_Quick(before, ids, behind, full))
        return encodings


class _Quick(Encoding):
    """An encoding whose tokens, offsets and words are worked out when they are first looked at."""

    def __init__(
        self, before: TokenRow, ids: list[int], behind: TokenRow, full: Callable[[], Encoding]
    ) -> None:
        n = len(ids)
        self.ids = [*before.ids, *ids, *behind.ids]
        self.type_ids = [*before.type_ids, *[0] * n, *behind.type_ids]
        self.special_tokens_mask = [*before.special, *[0] * n, *behind.special]
        self.attention_mask = [1] * len(self.ids)
        self.overflowing = []
        self._full = full
        self._pads: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if name not in ("tokens", "offsets", "word_ids", "sequence_ids"):
            raise AttributeError(name)
        full = self._full()
        for pad in self._pads:
            full._pad(*pad)
        for column in ("tokens", "offsets", "word_ids", "sequence_ids"):
            self.__dict__[column] = getattr(full, column)
        return self.__dict__[name]

    def __reduce__(self) -> tuple[Any, ...]:
        columns = ("ids", "tokens", "offsets", "word_ids", "type_ids", "special_tokens_mask")
        state = {name: getattr(self, name) for name in (*columns, "sequence_ids")}
        state |= {"attention_mask": self.attention_mask, "overflowing": []}
        return _restore, (state,)

    def _pad(
        self, length: int, direction: Any, pad_id: int, pad_type_id: int, pad_token: str
    ) -> None:
        n = length - len(self.ids)
        if n <= 0:
            return
        columns = {"ids": pad_id, "type_ids": pad_type_id, "special_tokens_mask": 1}
        for name, filler in {**columns, "attention_mask": 0}.items():
            column: list[int] = getattr(self, name)
            more = [filler] * n
            setattr(self, name, more + column if direction == "left" else column + more)
        if "tokens" in self.__dict__:
            fillers = {"tokens": pad_token, "offsets": (0, 0), "word_ids": None}
            for name, item in {**fillers, "sequence_ids": None}.items():
                old: list[Any] = getattr(self, name)
                setattr(self, name, [item] * n + old if direction == "left" else old + [item] * n)
        else:
            self._pads.append((length, direction, pad_id, pad_type_id, pad_token))


def _restore(state: dict[str, Any]) -> Encoding:
    encoding = Encoding.__new__(Encoding)
    encoding.__dict__.update(state)
    return encoding
