"""Find a model by path or name and make it run."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm.errors import ArgumentError, UnsupportedError
from rustllm.models.transformer import Transformer

if TYPE_CHECKING:
    from rustllm.loaders.gguf import GGUFFile

__all__ = ["load_model"]


def load_model(
    path_or_name: str | PathLike[str], threads: int | None = None, exact: bool = False
) -> Transformer:
    """Load a model from a GGUF file or by a name that ``rustllm pull`` knows.

    Parameters
    ----------
    path_or_name : str or path
        A file, or a name such as ``"smollm2-135m-instruct"``, which is fetched if it is not here.
    threads : int, optional
        Threads that each call uses; by default as many as the process may run at once. Results do
        not depend on it.
    exact : bool
        Keep activations in float32 and caches in single precision: slower, to check against.

    Returns
    -------
    Transformer

    Raises
    ------
    FileMissingError, FileFormatError, TruncatedFileError
        The file is not there or is not a sound GGUF file.
    UnsupportedError
        The architecture or a block type is not implemented.
    ModelError, TensorError
        Hyper-parameters and tensors contradict each other.

    Examples
    --------
    >>> import rustllm
    >>> model = rustllm.load_model("smollm2-135m-instruct")  # doctest: +SKIP
    >>> pieces = model.generate("The capital of France is", temperature=0)  # doctest: +SKIP
    >>> "".join(pieces)  # doctest: +SKIP
    ' Paris.'
    """
    from rustllm._core.threads import available_threads
    from rustllm.loaders.gguf import GGUFFile
    from rustllm.models.gguf_config import config_from_gguf
    from rustllm.models.gguf_weights import read_weights
    from rustllm.models.store import resolve_model

    if threads is None:
        threads = available_threads()
    if not 1 <= threads <= 256:
        raise ArgumentError(f"threads must be 1 to 256, not {threads}")
    path = Path(resolve_model(str(path_or_name)))
    file = GGUFFile(path)
    try:
        config = config_from_gguf(file)
        plan = architecture(config.architecture, path)(config)
        weights = read_weights(file, plan, threads=threads)
    except BaseException:
        file.close()
        raise
    return Transformer(
        config,
        plan,
        weights,
        threads=threads,
        exact=exact,
        tokenizer=lambda: _tokenizer(file),
        end_ids=_end_ids(file),
        bos_id=_bos_id(file),
        metadata=file.metadata,
        path=path,
    )


def _tokenizer(file: GGUFFile) -> Any:
    from rustllm.tokenizers.gguf import tokenizer_from_gguf

    return tokenizer_from_gguf(file)


def _end_ids(file: GGUFFile) -> list[int]:
    keys = ("eos_token_id", "eot_token_id", "eom_token_id")
    found = [file.metadata.get(f"tokenizer.ggml.{key}") for key in keys]
    return [id for id in found if isinstance(id, int)]


def _bos_id(file: GGUFFile) -> int | None:
    id = file.metadata.get("tokenizer.ggml.bos_token_id")
    wanted = file.metadata.get("tokenizer.ggml.add_bos_token")
    if wanted is None:  # the default of files that do not say
        wanted = file.metadata.get("tokenizer.ggml.model") == "llama"
    return id if wanted and isinstance(id, int) else None


def architecture(name: str, path: Path | None = None) -> Any:
    """Return the function that writes the plan of an architecture, built in or a plugin's."""
    from rustllm.plugins.quick import lookup

    try:
        return lookup("architecture", name)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"the architecture {name!r} is not supported",
            path=path,
            key="general.architecture",
            hint=error.hint,
        ) from None
