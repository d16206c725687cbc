"""Implementations fit the protocols, and half ones cannot be made."""

from collections.abc import Iterable
from typing import assert_type

from expect import raises

from rustllm import Plugin, Token, Tokenizer
from rustllm.errors import UnknownTokenError
from rustllm.testing import BigramModel, ByteTokenizer
from rustllm.traits import ModelLike, PluginLike, TokenizerLike, TokenLike, VocabularyToken
from rustllm.types import TokenArray, as_token_array


def n_tokens(tokenizer: TokenizerLike, text: str) -> int:
    return len(tokenizer.encode_ordinary(text))


class Upper(Tokenizer[VocabularyToken]):
    @property
    def n_vocab(self) -> int:
        return 128

    def id_to_bytes(self, id: int) -> bytes:
        if not 0 <= id < 128:
            raise UnknownTokenError("no such id", token=id)
        return bytes([id])

    def _encode_ordinary_to_numpy(self, text: str) -> TokenArray:
        return as_token_array(text.upper().encode("ascii"))


class Duck:
    """Looks like a tokenizer and derives from nothing."""

    n_vocab = 1

    def encode(self, text: str) -> list[int]:
        return [0] * len(text)

    encode_ordinary = encode

    def encode_to_numpy(self, text: str) -> TokenArray:
        return as_token_array(self.encode(text))

    def decode(self, ids: Iterable[int]) -> str:
        return "quack"

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return b"quack"


class Half(Tokenizer):
    @property
    def n_vocab(self) -> int:
        return 1


class NoPlugin:
    def setup(self, context: object) -> None:
        pass


class Quiet(Plugin[list[str]]):
    def setup(self, context: list[str]) -> None:
        context.append("ready")


assert n_tokens(Upper(), "abc") == n_tokens(ByteTokenizer(), "abc") == n_tokens(Duck(), "abc")
assert_type(Upper().token(65), VocabularyToken)
token: TokenLike = Upper().token(65)
model: ModelLike = BigramModel.fit("ab")
plugin: PluginLike = Quiet()
assert isinstance(Duck(), TokenizerLike)
assert not isinstance(NoPlugin(), PluginLike)

with raises(TypeError):
    Half()  # E: abstract
with raises(AttributeError):
    n_tokens("gpt2", "abc")  # E: arg-type
with raises(AttributeError):
    not_one: PluginLike = NoPlugin()  # E: assignment
    not_one.start()
with raises(TypeError):
    Token()  # E: abstract
with raises(AttributeError):
    Quiet().setup(3)  # E: arg-type
