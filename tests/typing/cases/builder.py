"""The order of a builder's steps."""

from typing import assert_type

import numpy as np
from expect import raises

from rustllm import Model, ModelBuilder
from rustllm.errors import StateError
from rustllm.testing import BigramBuilder, BigramConfig
from rustllm.traits import Loaded, NeedsConfig, NeedsWeights, Ready

config = BigramConfig(2)
weights = {"counts": np.ones((2, 2), np.float32)}

start = ModelBuilder()
assert_type(start, ModelBuilder[NeedsConfig])
with_config = start.config(config)
assert_type(with_config, ModelBuilder[NeedsWeights])
ready = with_config.options(threads=1).weights(weights)
assert_type(ready, ModelBuilder[Ready])
model = BigramBuilder().config(config).weights(weights).build()
assert_type(model, Model[Loaded])

with raises(StateError):
    start.weights(weights)  # E: misc
with raises(StateError):
    start.build()  # E: misc
with raises(StateError):
    with_config.build()  # E: misc
with raises(StateError):
    with_config.config(config)  # E: misc
with raises(StateError):
    ready.config(config)  # E: misc
with raises(StateError):
    ready.weights(weights)  # E: misc
with raises(AttributeError):
    start.finish()  # E: attr-defined
with raises(AttributeError):
    start.config("llama")  # E: arg-type
