"""A closed model is no loaded one."""

from typing import assert_type

from expect import raises

from rustllm import LanguageModel, Model
from rustllm.errors import StateError
from rustllm.testing import BigramConfig, BigramModel, BigramState
from rustllm.traits import Closed, Loaded


def ask(model: Model[Loaded]) -> str:
    model.require(Loaded)
    return "yes"


model = BigramModel.fit("abab")
assert_type(model.config, BigramConfig)
assert_type(model.new_state(), BigramState)
plain: LanguageModel = model  # the defaults of the parameters: loaded, any config, any state
ask(model)
ask(plain)

closed = model.close()
assert_type(closed, Model[Closed])
with raises(StateError):
    ask(closed)  # E: arg-type
with raises(StateError):
    model.generate("a")
