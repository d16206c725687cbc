"""An object that answers like ``tokenizers.Tokenizer``, without its shared state.

Truncation and padding are arguments of a call, never settings of the object, so that threads cannot
change each other's results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any, Literal

from rustllm.errors import ArgumentError
from rustllm.tokenizers.pipeline import Pipeline
from rustllm.tokenizers.postprocessors import TokenRow, join_rows
from rustllm.tokenizers.traced_text import Span

__all__ = ["Encoding", "HfTokenizer"]

Side = Literal["left", "right"]
Strategy = Literal["longest_first", "only_first", "only_second"]


class Encoding:
    """Tokens of a text or of a pair of texts, column by column.

    Attributes
    ----------
    ids, type_ids, attention_mask, special_tokens_mask : list of int
    tokens : list of str
    offsets : list of (int, int)
        Characters of the text behind each token.
    word_ids, sequence_ids : list of int or None
        Piece of the pre-tokenizer, and text of the pair, that a token belongs to.
    overflowing : list of Encoding
        What truncation cut away.

    Notes
    -----
    Treat as immutable.
    """

    def __init__(self, row: TokenRow, overflowing: Sequence[Encoding] = ()) -> None:
        self.ids = row.ids
        self.tokens = row.tokens
        self.offsets = row.offsets
        self.word_ids = row.words
        self.type_ids = row.type_ids
        self.special_tokens_mask = row.special
        self.sequence_ids = row.sequences
        self.attention_mask = [1] * len(row.ids)
        self.overflowing = list(overflowing)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Encoding(num_tokens={len(self.ids)})"

    @property
    def words(self) -> list[int | None]:
        """The older name of `word_ids`."""
        return self.word_ids

    @property
    def n_sequences(self) -> int:
        """1 for a text, 2 for a pair."""
        return len({sequence for sequence in self.sequence_ids if sequence is not None}) or 1

    def token_to_chars(self, token_index: int) -> tuple[int, Span] | Span | None:
        """Characters behind a token; None for one that stands for no text."""
        if self.sequence_ids[token_index] is None:
            return None
        return self.offsets[token_index]

    def token_to_word(self, token_index: int) -> int | None:
        """Word that a token belongs to."""
        return self.word_ids[token_index]

    def token_to_sequence(self, token_index: int) -> int | None:
        """Text of the pair that a token belongs to."""
        return self.sequence_ids[token_index]

    def char_to_token(self, char_pos: int, sequence_index: int = 0) -> int | None:
        """First token whose span holds a character."""
        for i, (start, end) in enumerate(self.offsets):
            if self.sequence_ids[i] == sequence_index and start <= char_pos < end:
                return i
        return None

    def char_to_word(self, char_pos: int, sequence_index: int = 0) -> int | None:
        """Word that holds a character."""
        token = self.char_to_token(char_pos, sequence_index)
        return None if token is None else self.word_ids[token]

    def word_to_tokens(self, word_index: int, sequence_index: int = 0) -> Span | None:
        """First token of a word, and one past its last."""
        found = [
            i
            for i, word in enumerate(self.word_ids)
            if word == word_index and self.sequence_ids[i] == sequence_index
        ]
        return (found[0], found[-1] + 1) if found else None

    def word_to_chars(self, word_index: int, sequence_index: int = 0) -> Span | None:
        """Characters of a word."""
        tokens = self.word_to_tokens(word_index, sequence_index)
        if tokens is None:
            return None
        return self.offsets[tokens[0]][0], self.offsets[tokens[1] - 1][1]

    def _pad(
        self, length: int, direction: Side, pad_id: int, pad_type_id: int, pad_token: str
    ) -> None:
        for part in self.overflowing:
            part._pad(length, direction, pad_id, pad_type_id, pad_token)
        n = length - len(self.ids)
        if n <= 0:
            return
        for name, filler in (
            ("ids", pad_id),
            ("type_ids", pad_type_id),
            ("tokens", pad_token),
            ("offsets", (0, 0)),
            ("word_ids", None),
            ("sequence_ids", None),
            ("special_tokens_mask", 1),
            ("attention_mask", 0),
        ):
            column: list[Any] = getattr(self, name)
            more = [filler] * n
            setattr(self, name, more + column if direction == "left" else column + more)


class HfTokenizer:
    """Answers like ``tokenizers.Tokenizer``; get one from ``tokenizer.as_hf()``.

    Parameters
    ----------
    pipeline : Pipeline

    Notes
    -----
    Immutable: any number of threads may use one. What ``enable_truncation`` and ``enable_padding``
    set there is said here in each call; settings in the file are not applied.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    # -- text to ids ----------------------------------------------------------------------------

    def encode(
        self,
        sequence: str | Sequence[str],
        pair: str | Sequence[str] | None = None,
        is_pretokenized: bool = False,
        add_special_tokens: bool = True,
        *,
        split_special_tokens: bool = False,
        max_length: int | None = None,
        stride: int = 0,
        strategy: Strategy = "longest_first",
        direction: Side = "right",
        pad_to: int | None = None,
        pad_direction: Side = "right",
        pad_id: int = 0,
        pad_type_id: int = 0,
        pad_token: str = "[PAD]",
    ) -> Encoding:
        """Encode a text or a pair.

        Parameters
        ----------
        sequence, pair : str, or sequence of str
        is_pretokenized : bool
            The texts are sequences of words; offsets count from the start of each word.
        add_special_tokens : bool
            Put the tokens of the file's post-processor around the text.
        split_special_tokens : bool
            Special tokens that the text spells are text (``encode_special_tokens`` there).
        max_length : int, optional
            Truncate to this many tokens, those put around included.
        stride : int
            Tokens that a part cut away shares with the one before.
        strategy : {"longest_first", "only_first", "only_second"}
            Which text of a pair is cut.
        direction, pad_direction : {"right", "left"}
            Where tokens are cut away, and where padding goes.
        pad_to : int, optional
            Pad to this many tokens.
        pad_id, pad_type_id, pad_token
            What to pad with.

        Raises
        ------
        ArgumentError
            The text cannot be truncated that way.
        """
        texts = [sequence] if pair is None else [sequence, pair]
        refused = frozenset(self._pipeline.added.special) if split_special_tokens else frozenset()
        rows = [
            self._row(text, number, is_pretokenized, refused) for number, text in enumerate(texts)
        ]
        variants = [rows]
        if max_length is not None:
            added = 0
            if add_special_tokens:
                added = self.num_special_tokens_to_add(pair is not None)
            variants = _truncate(rows, max_length - added, stride, strategy, direction)
        encodings = [self._finish(variant, add_special_tokens) for variant in variants]
        encoding = encodings[0]
        encoding.overflowing = encodings[1:]
        if pad_to is not None:
            encoding._pad(pad_to, pad_direction, pad_id, pad_type_id, pad_token)
        return encoding

    def _row(
        self, text: str | Sequence[str], number: int, is_pretokenized: bool, refused: Set[str]
    ) -> TokenRow:
        if isinstance(text, str) == is_pretokenized:
            raise ArgumentError(
                "is_pretokenized takes sequences of words, and a text otherwise",
                key="is_pretokenized",
            )
        if isinstance(text, str):
            return self._pipeline.row(text, refused, number)
        row = TokenRow()
        for word, part in enumerate(text):
            more = self._pipeline.row(part, refused, number)
            more.words = [word] * len(more.ids)
            row.extend(more)
        return row

    def _finish(self, rows: list[TokenRow], add_special_tokens: bool) -> Encoding:
        rows = [row.slice(0, len(row.ids)) for row in rows]
        process = self._pipeline.post_processor
        if process is not None:
            rows = process(rows, add_special_tokens)
        return Encoding(join_rows(rows))

    def encode_batch(
        self,
        input: Iterable[Any],
        is_pretokenized: bool = False,
        add_special_tokens: bool = True,
        *,
        padding: bool = False,
        pad_to_multiple_of: int | None = None,
        pad_direction: Side = "right",
        pad_id: int = 0,
        pad_type_id: int = 0,
        pad_token: str = "[PAD]",
        **truncation: Any,
    ) -> list[Encoding]:
        """Encode texts or pairs; with `padding`, all to the length of the longest."""
        encodings = []
        for item in input:
            text, pair = _pair_of(item, is_pretokenized)
            encodings.append(
                self.encode(text, pair, is_pretokenized, add_special_tokens, **truncation)
            )
        if padding and encodings:
            length = max(map(len, encodings))
            if pad_to_multiple_of:
                length += -length % pad_to_multiple_of
            for encoding in encodings:
                encoding._pad(length, pad_direction, pad_id, pad_type_id, pad_token)
        return encodings

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        """Number of tokens that the post-processor puts around a text or a pair."""
        process = self._pipeline.post_processor
        if process is None:
            return 0
        rows = process([TokenRow() for _ in range(1 + is_pair)], True)
        return sum(len(row.ids) for row in rows)

    # -- ids to text ----------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Decode `ids`; one that is not in use raises UnknownTokenError."""
        return self._pipeline.decode(ids, skip_special_tokens)

    def decode_batch(
        self, sequences: Iterable[Iterable[int]], skip_special_tokens: bool = True
    ) -> list[str]:
        """Decode each of `sequences`."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    # -- the vocabulary -------------------------------------------------------------------------

    def token_to_id(self, token: str) -> int | None:
        """Id of a token given by its text."""
        return self._pipeline.token_to_id(token)

    def id_to_token(self, id: int) -> str | None:
        """Text of a token."""
        return self._pipeline.id_to_token(id)

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Every token and its id."""
        vocab = dict(self._pipeline.model.vocab)
        if with_added_tokens:
            vocab |= {token.content: token.id for token in self._pipeline.added.tokens}
        return vocab

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:
        """Number of tokens."""
        return len(self.get_vocab(with_added_tokens))

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        """Added tokens by id."""
        return dict(sorted(self._pipeline.added.by_id.items()))

    def to_str(self, pretty: bool = False) -> str:
        """The content of the ``tokenizer.json``."""
        import json

        return json.dumps(self._pipeline.content, ensure_ascii=False, indent=2 if pretty else None)


def _pair_of(item: Any, is_pretokenized: bool) -> tuple[Any, Any]:
    """A text and its pair, if it has one, from an item of a batch."""
    if isinstance(item, str) or (is_pretokenized and (not item or isinstance(item[0], str))):
        return item, None
    if len(item) == 1:
        return item[0], None
    if len(item) != 2:
        raise ArgumentError(f"an item is a text or a pair of texts, not {len(item)}", key="input")
    return item[0], item[1]


def _truncate(
    rows: list[TokenRow], length: int, stride: int, strategy: Strategy, direction: Side
) -> list[list[TokenRow]]:
    """Rows cut to `length` tokens together, followed by what was cut away."""
    total = sum(len(row.ids) for row in rows)
    if total <= length:
        return [rows]
    if length <= 0:
        return [[TokenRow() for _ in rows]]
    keep = [len(row.ids) for row in rows]
    excess = total - length
    if len(rows) == 1:
        keep[0] = length
    elif strategy == "longest_first":
        short, long = sorted(keep)
        if short > length:
            short = length
        # the longer text is cut first; when both are as long, they share
        long = max(short, length - short)
        if short + long > length:
            short = length // 2
            long = short + length % 2
        keep = [short, long] if keep[0] <= keep[1] else [long, short]
    else:
        which = 0 if strategy == "only_first" else 1
        if keep[which] <= excess:
            raise ArgumentError(
                f"the text to be cut has {keep[which]} tokens, and {excess} have to go",
                key="strategy",
            )
        keep[which] -= excess
    parts = [_windows(row, n, stride, direction) for row, n in zip(rows, keep, strict=True)]
    if len(parts) == 1:
        return [[part] for part in parts[0]]
    first, second = parts
    out = [[first[0], second[0]]]
    out += [[part, second[0]] for part in first[1:]]
    out += [[first[0], part] for part in second[1:]]
    out += [[a, b] for a in first[1:] for b in second[1:]]
    return out


def _windows(row: TokenRow, length: int, stride: int, direction: Side) -> list[TokenRow]:
    n = len(row.ids)
    if n <= length:
        return [row]
    if length == 0:
        return [TokenRow(), row]
    if stride >= length:
        raise ArgumentError(f"stride {stride} is not below the length {length}", key="stride")
    step = length - stride
    windows = []
    if direction == "right":
        for start in range(0, n, step):
            end = min(start + length, n)
            windows.append(row.slice(start, end))
            if end == n:
                break
    else:
        for end in range(n, 0, -step):
            start = max(end - length, 0)
            windows.append(row.slice(start, end))
            if start == 0:
                break
    return windows
