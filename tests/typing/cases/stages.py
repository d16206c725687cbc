"""Tokens that were not checked are not decoded."""

from typing import assert_type

from expect import raises

from rustllm.errors import StateError
from rustllm.testing import ByteTokenizer
from rustllm.types import Encoded, Tokens, Unchecked

tokenizer = ByteTokenizer()
read = Tokens.unchecked([104, 105])
assert_type(read, Tokens[Unchecked])
good = read.check(n_vocab=256)
assert_type(good, Tokens[Encoded])
assert_type(good + Tokens.encode(tokenizer, "!"), Tokens[Encoded])
assert good.decode(tokenizer) == "hi"

with raises(StateError):
    read.decode(tokenizer)  # E: misc
with raises(StateError):
    good.check(n_vocab=256)  # E: misc
with raises(StateError):
    good + read  # E: operator
with raises(StateError):
    wrong: Tokens[Encoded] = Tokens.unchecked([1])  # E: assignment
    wrong.decode(tokenizer)
