"""What tokenizers, models and plugins are: base classes with defaults, and protocols beside them.

Derive from a base class to get every method that follows from a few (`Tokenizer` asks for three);
annotate with a protocol (`TokenizerLike`) to accept objects that only look alike.
`rustllm.testing` holds the tests that an implementation of each has to pass.
"""

from typing import TYPE_CHECKING

from rustllm._lazy import lazy_names

# A tokenizer needs one of these modules, not what models are: each is loaded for its first name.
_PUBLIC = {
    "Batch": "rustllm.traits.batch",
    "Closed": "rustllm.traits.model",
    "ConfigLike": "rustllm.traits.protocols",
    "Constraint": "rustllm.traits.sampling",
    "Generation": "rustllm.traits.generation",
    "LanguageModel": "rustllm.traits.model",
    "LanguageModelConfig": "rustllm.traits.config",
    "Loaded": "rustllm.traits.model",
    "LogitsProcessor": "rustllm.traits.sampling",
    "Matcher": "rustllm.traits.sampling",
    "Model": "rustllm.traits.model",
    "ModelBuilder": "rustllm.traits.builder",
    "ModelConfig": "rustllm.traits.config",
    "ModelLike": "rustllm.traits.protocols",
    "ModelState": "rustllm.traits.model",
    "NeedsConfig": "rustllm.traits.builder",
    "NeedsWeights": "rustllm.traits.builder",
    "Piece": "rustllm.traits.generation",
    "Plugin": "rustllm.traits.plugin",
    "PluginLike": "rustllm.traits.protocols",
    "PrefixCache": "rustllm.traits.prefix_cache",
    "Ready": "rustllm.traits.builder",
    "Sampling": "rustllm.traits.sampling",
    "Scores": "rustllm.traits.scoring",
    "StateLike": "rustllm.traits.protocols",
    "StreamDecoder": "rustllm.traits.tokenizer",
    "SupportsDecode": "rustllm.traits.protocols",
    "SupportsEncode": "rustllm.traits.protocols",
    "SupportsGenerate": "rustllm.traits.protocols",
    "Token": "rustllm.traits.token",
    "TokenLike": "rustllm.traits.protocols",
    "Tokenizer": "rustllm.traits.tokenizer",
    "TokenizerLike": "rustllm.traits.protocols",
    "Unloaded": "rustllm.traits.model",
    "VocabularyToken": "rustllm.traits.token",
}

__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from rustllm.traits.batch import Batch as Batch
    from rustllm.traits.builder import ModelBuilder as ModelBuilder
    from rustllm.traits.builder import NeedsConfig as NeedsConfig
    from rustllm.traits.builder import NeedsWeights as NeedsWeights
    from rustllm.traits.builder import Ready as Ready
    from rustllm.traits.config import LanguageModelConfig as LanguageModelConfig
    from rustllm.traits.config import ModelConfig as ModelConfig
    from rustllm.traits.generation import Generation as Generation
    from rustllm.traits.generation import Piece as Piece
    from rustllm.traits.model import Closed as Closed
    from rustllm.traits.model import LanguageModel as LanguageModel
    from rustllm.traits.model import Loaded as Loaded
    from rustllm.traits.model import Model as Model
    from rustllm.traits.model import ModelState as ModelState
    from rustllm.traits.model import Unloaded as Unloaded
    from rustllm.traits.plugin import Plugin as Plugin
    from rustllm.traits.prefix_cache import PrefixCache as PrefixCache
    from rustllm.traits.protocols import ConfigLike as ConfigLike
    from rustllm.traits.protocols import ModelLike as ModelLike
    from rustllm.traits.protocols import PluginLike as PluginLike
    from rustllm.traits.protocols import StateLike as StateLike
    from rustllm.traits.protocols import SupportsDecode as SupportsDecode
    from rustllm.traits.protocols import SupportsEncode as SupportsEncode
    from rustllm.traits.protocols import SupportsGenerate as SupportsGenerate
    from rustllm.traits.protocols import TokenizerLike as TokenizerLike
    from rustllm.traits.protocols import TokenLike as TokenLike
    from rustllm.traits.sampling import Constraint as Constraint
    from rustllm.traits.sampling import LogitsProcessor as LogitsProcessor
    from rustllm.traits.sampling import Matcher as Matcher
    from rustllm.traits.sampling import Sampling as Sampling
    from rustllm.traits.scoring import Scores as Scores
    from rustllm.traits.token import Token as Token
    from rustllm.traits.token import VocabularyToken as VocabularyToken
    from rustllm.traits.tokenizer import StreamDecoder as StreamDecoder
    from rustllm.traits.tokenizer import Tokenizer as Tokenizer

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
