"""A model in a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rustllm.loaders.gguf import GGUFFile
from rustllm.models.gguf_config import describe_gguf
from rustllm.models.gguf_weights import GGUFWeights
from rustllm.models.source import ModelSource
from rustllm.models.weights import WeightFiles

__all__ = ["GGUFSource"]


class GGUFSource(ModelSource):
    """An opened GGUF file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileMissingError, FileFormatError, TruncatedFileError, ModelError, UnsupportedError
        As :class:`~rustllm.loaders.gguf.GGUFFile` and ``describe_gguf``.
    """

    def __init__(self, path: Path) -> None:
        self._file = GGUFFile(path)
        try:
            described = describe_gguf(self._file)
        except BaseException:
            self._file.close()
            raise
        self.config = described.config
        self.metadata = self._file.metadata
        self._vectors = described.vectors

    def weights(self) -> WeightFiles:
        return GGUFWeights(self._file, self._vectors)

    def tokenizer(self) -> Any:
        from rustllm.tokenizers.gguf import tokenizer_from_gguf

        return tokenizer_from_gguf(self._file)

    def end_ids(self) -> list[int]:
        keys = ("eos_token_id", "eot_token_id", "eom_token_id")
        found = [self.metadata.get(f"tokenizer.ggml.{key}") for key in keys]
        return [id for id in found if isinstance(id, int)]

    def bos_id(self) -> int | None:
        id = self.metadata.get("tokenizer.ggml.bos_token_id")
        wanted = self.metadata.get("tokenizer.ggml.add_bos_token")
        if wanted is None:  # the default of files that do not say
            wanted = self.metadata.get("tokenizer.ggml.model") == "llama"
        return id if wanted and isinstance(id, int) else None

    def close(self) -> None:
        self._file.close()
