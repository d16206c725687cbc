"""tiktoken's ``Encoding``: ranks, a pattern and special tokens, with every method it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm._core.split import EXPRESSIONS, NAMES
from rustllm.errors import ArgumentError
from rustllm.tokenizers.bpe import BpeTokenizer
from rustllm.tokenizers.tiktoken_format import encoder_from_ranks

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["Encoding", "pattern_of_expression"]

# What tiktoken, its documentation and tokenizer files write for the patterns that are built in.
_WRITTEN = {
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": "gpt2",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "cl100k",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s": "cl100k_tiktoken",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "o200k",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}


def pattern_of_expression(expression: str) -> str | None:
    """Name of the built-in pattern that `expression` writes, or None.

    >>> from rustllm.tokenizers.encoding import pattern_of_expression
    >>> pattern_of_expression(r"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
    ...                       r"|\\s+(?!\\S)|\\s+")
    'gpt2'
    """
    if expression in _WRITTEN:
        return _WRITTEN[expression]
    return next(
        (name for name, (one, *more) in EXPRESSIONS.items() if one == expression and not more), None
    )


class Encoding(BpeTokenizer):
    """Byte-pair encoding given by ranks, as tiktoken's class of the same name.

    Parameters
    ----------
    name : str
    pat_str : str
        Expression that cuts pretokens, or the name of a built-in pattern. Any other expression than
        the built-in ones takes the ``regex`` package, and its time.
    mergeable_ranks : mapping of bytes to int
    special_tokens : mapping of str to int
    explicit_n_vocab : int, optional
        Checked: as many tokens as this, with the largest id one less.

    Raises
    ------
    MissingDependencyError
        The expression is none of those built in, and the ``regex`` package is not installed.
    ArgumentError
        The expression is not one, two tokens share an id, or `explicit_n_vocab` does not agree.

    Examples
    --------
    >>> from rustllm.tokenizers import Encoding
    >>> ranks = {bytes([i]): i for i in range(256)} | {b"ab": 256}
    >>> enc = Encoding("toy", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={"<end>": 257})
    >>> enc.encode("abc<end>", allowed_special="all"), enc.decode([256, 99])
    ([256, 99, 257], 'abc')
    """

    def __init__(
        self,
        name: str,
        *,
        pat_str: str,
        mergeable_ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int],
        explicit_n_vocab: int | None = None,
    ) -> None:
        pattern = pat_str if pat_str in EXPRESSIONS else pattern_of_expression(pat_str)
        ordered = sorted(mergeable_ranks.items(), key=lambda item: item[1])
        ids = np.array([rank for _, rank in ordered], dtype=np.int64)
        if len(ids) and (ids[0] < 0 or (np.diff(ids) == 0).any()):
            raise ArgumentError("ranks are distinct and not negative")
        lengths = np.zeros(int(ids[-1]) + 1 if len(ids) else 0, dtype=np.int64)
        lengths[ids] = [len(token) for token, _ in ordered]
        if len(ids) and not lengths[ids].all():
            raise ArgumentError("a token has no bytes")
        ends = np.zeros(len(lengths) + 1, dtype=np.uint32)
        np.cumsum(lengths, out=ends[1:])
        ranks = b"".join(token for token, _ in ordered), ends, ids.astype(np.uint32)
        encoder: Any = encoder_from_ranks(ranks, special_tokens, pattern)
        if pattern is None:
            from rustllm.tokenizers.expression_encoder import ExpressionEncoder

            encoder = ExpressionEncoder(encoder, pat_str)
        super().__init__(encoder, name=name, special_tokens=special_tokens)
        if explicit_n_vocab is not None:
            count = len(mergeable_ranks) + len(special_tokens)
            if count != explicit_n_vocab or self.max_token_value != explicit_n_vocab - 1:
                raise ArgumentError(
                    f"explicit_n_vocab is {explicit_n_vocab}, but there are {count} tokens and the "
                    f"largest id is {self.max_token_value}"
                )

    @property
    def _mergeable_ranks(self) -> dict[bytes, int]:
        blob, ends = self._encoder.tables()
        bounds = ends.tolist()
        order = np.asarray(self._encoder.parts["order"]).tolist()
        return {blob[bounds[id] : bounds[id + 1]]: id for id in order}

    @property
    def _special_tokens(self) -> dict[str, int]:
        return dict(self.special_tokens)

    @property
    def _pat_str(self) -> str:
        parts = self._encoder.parts
        expression: str | None = parts.get("expression")
        return expression or EXPRESSIONS[NAMES[parts["pattern"]]][0]

    def save(self, path: PathLikeStr, format: str | None = None) -> None:
        """Write the vocabulary.

        Parameters
        ----------
        path : path
        format : {"tiktoken", "tokenizer.json", "tekken", "vocab-merges", "gguf"}, optional
            By default the one that the name says, and tiktoken's ranks if it says nothing. Ranks
            have neither special tokens nor a pattern: `get_encoding` with `vocab=` adds those of a
            name.

        Raises
        ------
        UnsupportedError
            The format cannot hold this vocabulary with the same ids for every text.
        ArgumentError
            There is no such format.
        """
        from rustllm.serialize.atomic import atomic_write
        from rustllm.tokenizers.conversion import format_of_path, save_tokenizer
        from rustllm.tokenizers.tiktoken_format import write_ranks

        if format is None:
            try:
                format = format_of_path(path)
            except ArgumentError:
                format = "tiktoken"
        if format != "tiktoken":
            save_tokenizer(self, path, format)
            return
        with atomic_write(path) as out:
            out.write(write_ranks(self._mergeable_ranks))
