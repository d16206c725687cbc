"""Tokenizers: text to ids and back, exactly as the vocabularies' own implementations do it.

`rustllm.get_encoding` gives tiktoken's encodings by name, `rustllm.load_tokenizer` reads a file of
any known format. All of them share :class:`BpeTokenizer`'s interface, which is tiktoken's with
arrays, flat batches, counts and offsets added.
"""

from typing import TYPE_CHECKING

from rustllm._lazy import lazy_names

_PUBLIC = {
    "BpeTokenizer": "rustllm.tokenizers.bpe",
    "Encoding": "rustllm.tokenizers.encoding",
    "encoding_for_model": "rustllm.tokenizers.registry",
    "encoding_name_for_model": "rustllm.tokenizers.registry",
    "get_encoding": "rustllm.tokenizers.registry",
    "list_encoding_names": "rustllm.tokenizers.registry",
    "load_tokenizer": "rustllm.tokenizers.load",
    "save_tokenizer": "rustllm.tokenizers.conversion",
    "tokenizer_from_gguf": "rustllm.tokenizers.gguf",
}

__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from rustllm.tokenizers.bpe import BpeTokenizer as BpeTokenizer
    from rustllm.tokenizers.conversion import save_tokenizer as save_tokenizer
    from rustllm.tokenizers.encoding import Encoding as Encoding
    from rustllm.tokenizers.gguf import tokenizer_from_gguf as tokenizer_from_gguf
    from rustllm.tokenizers.load import load_tokenizer as load_tokenizer
    from rustllm.tokenizers.registry import encoding_for_model as encoding_for_model
    from rustllm.tokenizers.registry import encoding_name_for_model as encoding_name_for_model
    from rustllm.tokenizers.registry import get_encoding as get_encoding
    from rustllm.tokenizers.registry import list_encoding_names as list_encoding_names

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
