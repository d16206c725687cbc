"""What a BPE trainer found: tokens and merges, and how to write them for others."""

from __future__ import annotations

import base64
import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm._core.split import EXPRESSIONS
from rustllm.errors import UnsupportedError
from rustllm.serialize.atomic import write_whole
from rustllm.tokenizers.byte_alphabet import bytes_to_text
from rustllm.tokenizers.byte_level_json import byte_level, byte_level_json, splits_of

if TYPE_CHECKING:
    from rustllm._core.train import MergeLoop
    from rustllm.tokenizers.bpe import BpeTokenizer

__all__ = ["TrainedBpe"]


class TrainedBpe:
    """A trained vocabulary, in the order in which it was learnt, and the tokenizer it makes.

    Every method of a tokenizer works on it (`encode`, `decode`, `count`, `as_hf`...): the encoder
    is built when the first of them is called, so that training alone needs neither the time nor the
    memory.

    Attributes
    ----------
    pattern : str or None
        How text is split before merging.
    special_tokens : dict of str to int
        They have the first ids.

    Notes
    -----
    Immutable; any number of threads may read one.

    Examples
    --------
    >>> from rustllm.tokenizers.trainer import BpeTrainer
    >>> trained = BpeTrainer(258, special_tokens=["<end>"]).train(["aaa"])
    >>> trained.n_vocab, trained.merges_as_text(), trained.special_tokens
    (258, [('a', 'a')], {'<end>': 0})
    >>> trained.encode("aaa")
    [257, 65]
    """

    def __init__(
        self,
        loop: MergeLoop,
        special_tokens: dict[str, int],
        pattern: str | None,
    ) -> None:
        self._tokens = loop.token_strings()
        self._merges = loop.merges_by_rank()
        self.special_tokens = special_tokens
        self.pattern = pattern

    @cached_property
    def tokenizer(self) -> BpeTokenizer:
        """The tokenizer that this vocabulary makes; built when first asked for.

        Raises
        ------
        UnsupportedError
            The pattern is no built-in one, or text is not split at all.
        """
        from rustllm.tokenizers.tokenizer_json import from_bytes

        made: Any = from_bytes(json.dumps(self.to_json()).encode(), "trained")
        if self.pattern is None:
            raise UnsupportedError(
                "training without a pattern splits at line ends, which no tokenizer file can say",
                hint="save it, or take merges() and token_bytes()",
            )
        tokenizer: BpeTokenizer = made
        return tokenizer

    def __getattr__(self, name: str) -> Any:
        # whatever a tokenizer does: encode, decode, count, as_hf, ...
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.tokenizer, name)

    @property
    def n_vocab(self) -> int:
        """Number of tokens, special tokens included."""
        return len(self._tokens)

    def token_bytes(self) -> list[bytes]:
        """Bytes of every token by id; a special token's are its UTF-8 spelling."""
        tokens = list(self._tokens)
        for text, id in self.special_tokens.items():
            tokens[id] = text.encode()
        return tokens

    def merges(self) -> list[tuple[int, int, int]]:
        """The merges in order, as ids: left, right, and the token they make."""
        return list(self._merges)

    def merges_as_text(self) -> list[tuple[str, str]]:
        """The merges in order, in the byte alphabet, as ``tokenizer.json`` writes them."""
        text = [bytes_to_text(token) for token in self._tokens]
        return [(text[left], text[right]) for left, right, _ in self._merges]

    def mergeable_ranks(self) -> dict[bytes, int]:
        """Rank of each token that is not special, as ``tiktoken.Encoding`` takes them.

        A rank is the token's id. tiktoken merges whichever pair spells the lowest rank, while the
        merges here name their halves; the two differ only where some other pair of tokens spells
        the same token.
        """
        unlearnt = set(self.special_tokens.values())
        unlearnt -= {made for _, _, made in self._merges}
        return {
            token: id
            for id, token in enumerate(self._tokens)
            if id not in unlearnt or len(token) == 1
        }

    def to_json(self) -> dict[str, Any]:
        """The content of a ``tokenizer.json``."""
        text_of = {id: text for text, id in self.special_tokens.items()}
        vocab = {
            text_of.get(id) or bytes_to_text(token): id for id, token in enumerate(self._tokens)
        }
        pre_tokenizer = byte_level(self.pattern == "gpt2")
        if self.pattern not in (None, "gpt2"):
            splits = splits_of(EXPRESSIONS.get(self.pattern, (self.pattern,)))
            pre_tokenizer = {"type": "Sequence", "pretokenizers": [*splits, pre_tokenizer]}
        return byte_level_json(
            pre_tokenizer=pre_tokenizer,
            added=self.special_tokens,
            special=self.special_tokens,
            vocab=vocab,
            merges=[list(merge) for merge in self.merges_as_text()],
            whole=False,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary: ``NAME.tiktoken``, any other file as ``tokenizer.json``, or, when
        `path` is a folder, ``vocab.json`` and ``merges.txt`` in it.

        Raises
        ------
        FileMissingError, FileAccessError
            There is no such folder, or a file cannot be written.
        """
        target = Path(path)
        if target.is_dir():
            content = self.to_json()["model"]
            lines = [f"{left} {right}\n" for left, right in content["merges"]]
            vocab = json.dumps(content["vocab"], ensure_ascii=False)
            write_whole(target / "vocab.json", vocab.encode())
            write_whole(target / "merges.txt", ("#version: 0.2\n" + "".join(lines)).encode())
        elif target.suffix == ".tiktoken":
            ranks = sorted(self.mergeable_ranks().items(), key=lambda item: item[1])
            lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks]
            write_whole(target, "".join(lines).encode())
        else:
            text = json.dumps(self.to_json(), ensure_ascii=False, indent=2)
            write_whole(target, text.encode())
