"""What tokenizers, models and plugins are: base classes with defaults, and protocols beside them.

Derive from a base class to get every method that follows from a few (`Tokenizer` asks for three);
annotate with a protocol (`TokenizerLike`) to accept objects that only look alike.
`rustllm.testing` holds the tests that an implementation of each has to pass.
"""

from rustllm.traits.batch import Batch
from rustllm.traits.builder import ModelBuilder, NeedsConfig, NeedsWeights, Ready
from rustllm.traits.config import LanguageModelConfig, ModelConfig
from rustllm.traits.generation import Generation, Piece
from rustllm.traits.model import (
    Closed,
    LanguageModel,
    Loaded,
    Model,
    ModelState,
    Unloaded,
)
from rustllm.traits.plugin import Plugin
from rustllm.traits.prefix_cache import PrefixCache
from rustllm.traits.protocols import (
    ConfigLike,
    ModelLike,
    PluginLike,
    StateLike,
    SupportsDecode,
    SupportsEncode,
    SupportsGenerate,
    TokenizerLike,
    TokenLike,
)
from rustllm.traits.sampling import Constraint, LogitsProcessor, Matcher, Sampling
from rustllm.traits.scoring import Scores
from rustllm.traits.token import Token, VocabularyToken
from rustllm.traits.tokenizer import StreamDecoder, Tokenizer

__all__ = [
    "Batch",
    "Closed",
    "ConfigLike",
    "Constraint",
    "Generation",
    "LanguageModel",
    "LanguageModelConfig",
    "Loaded",
    "LogitsProcessor",
    "Matcher",
    "Model",
    "ModelBuilder",
    "ModelConfig",
    "ModelLike",
    "ModelState",
    "NeedsConfig",
    "NeedsWeights",
    "Piece",
    "Plugin",
    "PluginLike",
    "PrefixCache",
    "Ready",
    "Sampling",
    "Scores",
    "StateLike",
    "StreamDecoder",
    "SupportsDecode",
    "SupportsEncode",
    "SupportsGenerate",
    "Token",
    "TokenLike",
    "Tokenizer",
    "TokenizerLike",
    "Unloaded",
    "VocabularyToken",
]
