"""A model in a folder as Hugging Face's transformers saves one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm.errors import FileFormatError, ModelError, RustLLMError, UnsupportedError
from rustllm.loaders.safetensors import SafetensorsFolder
from rustllm.models.hf_config import HFConfig, read_json
from rustllm.models.hf_weights import FolderWeights
from rustllm.models.source import ModelSource
from rustllm.models.weights import WeightFiles

if TYPE_CHECKING:
    from rustllm.models.checkpoint import Checkpoint

__all__ = ["FolderSource"]

_MAX_TEMPLATE_BYTES = 256 << 10


class FolderSource(ModelSource):
    """An opened model folder.

    ``config.json`` and safetensors files are needed; ``generation_config.json``, the tokenizer's
    files and a chat template (``chat_template.jinja``, or in ``tokenizer_config.json``) are used
    where they are. No other file is read, and nothing in any of them is run.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileMissingError, FileAccessError, FileFormatError, TruncatedFileError
        A file is missing, cannot be read, or breaks the rules of its format.
    ModelError, UnsupportedError
        The configuration cannot be, or is of a kind that is not implemented.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        config_path = path / "config.json"
        hf = HFConfig(config_path, read_json(config_path))
        checkpoint = _checkpoint(hf)
        described = checkpoint.describe(hf)
        try:
            described.config.validate()
        except ModelError as error:
            raise ModelError(
                error.message, path=str(config_path), key=error.key, hint="is the file damaged?"
            ) from None
        self.config = described.config
        self._vectors = described.vectors
        self._checkpoint = checkpoint
        self._generation = {**hf.values, **_optional(path / "generation_config.json")}
        self._told = _optional(path / "tokenizer_config.json")
        self._tokenizer: Any = None
        self._folder = SafetensorsFolder(path)
        self.metadata = self._metadata()

    def weights(self) -> WeightFiles:
        return FolderWeights(self._folder, self._checkpoint, self.config, self._vectors)

    def tokenizer(self) -> Any:
        if self._tokenizer is None:
            from rustllm.tokenizers.load import load_tokenizer

            self._tokenizer = load_tokenizer(self._path)
        return self._tokenizer

    def end_ids(self) -> list[int]:
        told = self._generation.get("eos_token_id")
        ids = {*(told if isinstance(told, list) else [told]), self._special("eos_token")}
        known = range(self.config.n_vocab)
        return sorted(id for id in ids if type(id) is int and id in known)

    def bos_id(self) -> int | None:
        wanted = self._told.get("add_bos_token")
        if isinstance(wanted, bool):
            return self._special("bos_token") if wanted else None
        try:
            tokenizer = self.tokenizer()
        except (RustLLMError, OSError):  # whoever asks for the tokenizer is told
            return None
        if getattr(tokenizer, "add_bos", False):
            return getattr(tokenizer, "bos_id", None)
        return _put_in_front(tokenizer)

    def close(self) -> None:
        self._folder.close()

    def _metadata(self) -> Mapping[str, Any]:
        """What a chat template needs, under GGUF's keys."""
        metadata: dict[str, Any] = {"tokenizer.ggml.tokens": _Tokens(self)}
        template = self._template()
        if template is not None:
            metadata["tokenizer.chat_template"] = template
        for kind in ("bos", "eos"):
            id = self._special(f"{kind}_token") if template is not None else None
            if id is not None:
                metadata[f"tokenizer.ggml.{kind}_token_id"] = id
        return metadata

    def _template(self) -> Any:
        path = self._path / "chat_template.jinja"
        if path.is_file():
            from rustllm.loaders.mapped import MappedFile

            file = MappedFile(path, mmap=False)
            if file.size > _MAX_TEMPLATE_BYTES:
                raise UnsupportedError(f"a chat template of {file.size} bytes", path=str(path))
            try:
                return file.buffer.tobytes().decode()
            except UnicodeDecodeError as error:
                raise FileFormatError(
                    "the chat template is not valid UTF-8", path=str(path), offset=error.start
                ) from None
        template = self._told.get("chat_template")
        if isinstance(template, list):  # of named ones
            by_name = {
                entry.get("name"): entry.get("template")
                for entry in template
                if isinstance(entry, dict)
            }
            template = by_name.get("default")
        return template

    def _special(self, key: str) -> int | None:
        """The id of a special token that ``tokenizer_config.json`` names."""
        token = self._told.get(key)
        if isinstance(token, dict):
            token = token.get("content")
        if not isinstance(token, str):
            return None
        try:
            id = self.tokenizer().special_tokens.get(token)
        except (RustLLMError, OSError):
            return None
        return id if isinstance(id, int) else None


class _Tokens:
    """The vocabulary, looked at when a token is asked for."""

    def __init__(self, source: FolderSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return self._source.config.n_vocab

    def __getitem__(self, id: int) -> Any:
        return self._source.tokenizer().id_to_bytes(id)


def _checkpoint(hf: HFConfig) -> Checkpoint:
    """How folders of this model's type are read."""
    from rustllm.plugins.builtin import lookup

    kind = hf.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise hf.error("model_type", f"expected the name of an architecture, got {kind!r}")
    if hf.get("quantization_config") is not None:
        raise hf.unsupported(
            "quantization_config",
            "folders of quantized weights are not supported",
            "use the original weights, or a GGUF file",
        )
    try:
        checkpoint: Checkpoint = lookup("checkpoint", kind)
    except UnsupportedError as error:
        raise hf.unsupported(
            "model_type", f"models of type {kind!r} are not supported", error.hint
        ) from None
    return checkpoint


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _put_in_front(tokenizer: Any) -> int | None:
    """The id that the tokenizer's own post-processor begins a text with, if it is one token."""
    if not hasattr(tokenizer, "as_hf"):
        return None
    hf = tokenizer.as_hf()
    plain = hf.encode("a", add_special_tokens=False).ids
    full = hf.encode("a").ids
    n = len(plain)
    for start in range(len(full) - n + 1):
        if full[start : start + n] == plain:
            return int(full[0]) if start == 1 else None
    return None
