"""rustllm: tokenizers, models on a CPU, memory and plugins, compiled from source.

Public names are handed out on first use (PEP 562), so that importing the package costs little more
than importing numpy, and a user of one part never loads another.
"""

from typing import TYPE_CHECKING

from rustllm._lazy import lazy_names

__version__ = "0.1.0"

# Public name -> module that defines it. Kept sorted by floor, lowest first.
_PUBLIC = {
    # errors
    "RustLLMError": "rustllm.errors",
    "ArgumentError": "rustllm.errors",
    "CancelledError": "rustllm.errors",
    "ChannelClosedError": "rustllm.errors",
    "ChannelFullError": "rustllm.errors",
    "ConfigError": "rustllm.errors",
    "ContextLengthError": "rustllm.errors",
    "DeadlineError": "rustllm.errors",
    "DisallowedSpecialTokenError": "rustllm.errors",
    "DoubleReleaseError": "rustllm.errors",
    "DownloadError": "rustllm.errors",
    "FileAccessError": "rustllm.errors",
    "FileFormatError": "rustllm.errors",
    "FileMissingError": "rustllm.errors",
    "HashMismatchError": "rustllm.errors",
    "InvalidUtf8Error": "rustllm.errors",
    "LiveViewError": "rustllm.errors",
    "ManifestError": "rustllm.errors",
    "MemoryLimitError": "rustllm.errors",
    "MissingDependencyError": "rustllm.errors",
    "ModelError": "rustllm.errors",
    "OutOfMemoryError": "rustllm.errors",
    "OutOfRangeError": "rustllm.errors",
    "PluginError": "rustllm.errors",
    "PluginTrustError": "rustllm.errors",
    "StaleHandleError": "rustllm.errors",
    "StalePluginError": "rustllm.errors",
    "StateError": "rustllm.errors",
    "TensorError": "rustllm.errors",
    "TokenizerError": "rustllm.errors",
    "TruncatedFileError": "rustllm.errors",
    "UnknownTokenError": "rustllm.errors",
    "UnsupportedError": "rustllm.errors",
    "VersionError": "rustllm.errors",
    "error_chain": "rustllm.errors",
    "error_context": "rustllm.errors",
    # memory
    "Arena": "rustllm.memory",
    "Cow": "rustllm.memory",
    "TextSlice": "rustllm.memory",
    "TokenPool": "rustllm.memory",
    # config and versions
    "Config": "rustllm.config",
    "Version": "rustllm.version",
    "VersionRange": "rustllm.version",
    # traits
    "LanguageModel": "rustllm.traits",
    "Model": "rustllm.traits",
    "ModelBuilder": "rustllm.traits",
    "ModelConfig": "rustllm.traits",
    "Plugin": "rustllm.traits",
    "Token": "rustllm.traits",
    "Tokenizer": "rustllm.traits",
    # iterators
    "TokenIterator": "rustllm.iterators",
    "chunks": "rustllm.iterators",
    "windows": "rustllm.iterators",
    "parallel_map": "rustllm.parallel",
    "stream": "rustllm.stream",
    "bench": "rustllm.bench",
    "constrain": "rustllm.constrain",
    "serialize": "rustllm.serialize",
    "testing": "rustllm.testing",
    "types": "rustllm.types",
    # types
    "TokenBatch": "rustllm.types",
    # numeric operations
    "ops": "rustllm.ops",
    # plugins
    "Channel": "rustllm.plugins.channels",
    "PluginManager": "rustllm.plugins.manager",
    "Registry": "rustllm.plugins.registry",
    # loaders
    "GGUFFile": "rustllm.loaders.gguf",
    "SafetensorsFile": "rustllm.loaders.safetensors",
    "detect_format": "rustllm.loaders.detect",
    "map_text": "rustllm.loaders.mapped_text",
    "open_archive": "rustllm.loaders.archives",
    "open_file": "rustllm.loaders.opening",
    "read_text": "rustllm.loaders.text",
    "stream_text": "rustllm.loaders.text",
    # tokenizers: training
    "BpeTrainer": "rustllm.tokenizers.trainer",
    "UnigramTrainer": "rustllm.tokenizers.unigram_trainer",
    "WordPieceTrainer": "rustllm.tokenizers.wordpiece_trainer",
    "Vocabulary": "rustllm.tokenizers.vocabulary",
    "WhitespaceTokenizer": "rustllm.tokenizers.whitespace",
    # tokenizers
    "BpeTokenizer": "rustllm.tokenizers",
    "Encoding": "rustllm.tokenizers",
    "encoding_for_model": "rustllm.tokenizers",
    "encoding_name_for_model": "rustllm.tokenizers",
    "get_encoding": "rustllm.tokenizers",
    "list_encoding_names": "rustllm.tokenizers",
    "load_tokenizer": "rustllm.tokenizers",
    # models
    "LinearModel": "rustllm.models.linear_model",
    "SelfAttention": "rustllm.models.self_attention",
    "load_model": "rustllm.models.load",
    # corpora
    "corpus": "rustllm.corpus",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from rustllm import bench as bench
    from rustllm import constrain as constrain
    from rustllm import corpus as corpus
    from rustllm import ops as ops
    from rustllm import serialize as serialize
    from rustllm import stream as stream
    from rustllm import testing as testing
    from rustllm import types as types
    from rustllm.config import Config as Config
    from rustllm.errors import ArgumentError as ArgumentError
    from rustllm.errors import CancelledError as CancelledError
    from rustllm.errors import ChannelClosedError as ChannelClosedError
    from rustllm.errors import ChannelFullError as ChannelFullError
    from rustllm.errors import ConfigError as ConfigError
    from rustllm.errors import ContextLengthError as ContextLengthError
    from rustllm.errors import DeadlineError as DeadlineError
    from rustllm.errors import DisallowedSpecialTokenError as DisallowedSpecialTokenError
    from rustllm.errors import DoubleReleaseError as DoubleReleaseError
    from rustllm.errors import DownloadError as DownloadError
    from rustllm.errors import FileAccessError as FileAccessError
    from rustllm.errors import FileFormatError as FileFormatError
    from rustllm.errors import FileMissingError as FileMissingError
    from rustllm.errors import HashMismatchError as HashMismatchError
    from rustllm.errors import InvalidUtf8Error as InvalidUtf8Error
    from rustllm.errors import LiveViewError as LiveViewError
    from rustllm.errors import ManifestError as ManifestError
    from rustllm.errors import MemoryLimitError as MemoryLimitError
    from rustllm.errors import MissingDependencyError as MissingDependencyError
    from rustllm.errors import ModelError as ModelError
    from rustllm.errors import OutOfMemoryError as OutOfMemoryError
    from rustllm.errors import OutOfRangeError as OutOfRangeError
    from rustllm.errors import PluginError as PluginError
    from rustllm.errors import PluginTrustError as PluginTrustError
    from rustllm.errors import RustLLMError as RustLLMError
    from rustllm.errors import StaleHandleError as StaleHandleError
    from rustllm.errors import StalePluginError as StalePluginError
    from rustllm.errors import StateError as StateError
    from rustllm.errors import TensorError as TensorError
    from rustllm.errors import TokenizerError as TokenizerError
    from rustllm.errors import TruncatedFileError as TruncatedFileError
    from rustllm.errors import UnknownTokenError as UnknownTokenError
    from rustllm.errors import UnsupportedError as UnsupportedError
    from rustllm.errors import VersionError as VersionError
    from rustllm.errors import error_chain as error_chain
    from rustllm.errors import error_context as error_context
    from rustllm.iterators import TokenIterator as TokenIterator
    from rustllm.iterators import chunks as chunks
    from rustllm.iterators import windows as windows
    from rustllm.loaders.archives import open_archive as open_archive
    from rustllm.loaders.detect import detect_format as detect_format
    from rustllm.loaders.gguf import GGUFFile as GGUFFile
    from rustllm.loaders.mapped_text import map_text as map_text
    from rustllm.loaders.opening import open_file as open_file
    from rustllm.loaders.safetensors import SafetensorsFile as SafetensorsFile
    from rustllm.loaders.text import read_text as read_text
    from rustllm.loaders.text import stream_text as stream_text
    from rustllm.memory import Arena as Arena
    from rustllm.memory import Cow as Cow
    from rustllm.memory import TextSlice as TextSlice
    from rustllm.memory import TokenPool as TokenPool
    from rustllm.models.linear_model import LinearModel as LinearModel
    from rustllm.models.load import load_model as load_model
    from rustllm.models.self_attention import SelfAttention as SelfAttention
    from rustllm.parallel import parallel_map as parallel_map
    from rustllm.plugins.channels import Channel as Channel
    from rustllm.plugins.manager import PluginManager as PluginManager
    from rustllm.plugins.registry import Registry as Registry
    from rustllm.tokenizers import BpeTokenizer as BpeTokenizer
    from rustllm.tokenizers import Encoding as Encoding
    from rustllm.tokenizers import encoding_for_model as encoding_for_model
    from rustllm.tokenizers import encoding_name_for_model as encoding_name_for_model
    from rustllm.tokenizers import get_encoding as get_encoding
    from rustllm.tokenizers import list_encoding_names as list_encoding_names
    from rustllm.tokenizers import load_tokenizer as load_tokenizer
    from rustllm.tokenizers.trainer import BpeTrainer as BpeTrainer
    from rustllm.tokenizers.unigram_trainer import UnigramTrainer as UnigramTrainer
    from rustllm.tokenizers.vocabulary import Vocabulary as Vocabulary
    from rustllm.tokenizers.whitespace import WhitespaceTokenizer as WhitespaceTokenizer
    from rustllm.tokenizers.wordpiece_trainer import WordPieceTrainer as WordPieceTrainer
    from rustllm.traits import LanguageModel as LanguageModel
    from rustllm.traits import Model as Model
    from rustllm.traits import ModelBuilder as ModelBuilder
    from rustllm.traits import ModelConfig as ModelConfig
    from rustllm.traits import Plugin as Plugin
    from rustllm.traits import Token as Token
    from rustllm.traits import Tokenizer as Tokenizer
    from rustllm.types import TokenBatch as TokenBatch
    from rustllm.version import Version as Version
    from rustllm.version import VersionRange as VersionRange

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
