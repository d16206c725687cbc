"""Find a model by path or name and make it run."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustllm.errors import ArgumentError, UnsupportedError, convert_errors
from rustllm.models.kv_dtype import checked_kv_dtype

if TYPE_CHECKING:
    from rustllm.models.source import ModelSource
    from rustllm.models.transformer import Transformer

__all__ = ["architecture", "load_model", "open_source"]


@convert_errors()
def load_model(
    path_or_name: str | PathLike[str],
    threads: int | None = None,
    exact: bool = False,
    kv_dtype: str | None = None,
) -> Transformer:
    """Load a model from a GGUF file, a folder, or by a name that ``rustllm pull`` knows.

    Parameters
    ----------
    path_or_name : str or path
        A GGUF file; a folder with ``config.json``, ``tokenizer.json`` and safetensors files, as
        Hugging Face's transformers saves it; or a name such as ``"smollm2-135m-instruct"``, which
        is fetched if it is not here.
    threads : int, optional
        Threads that each call uses; by default as many as the process may run at once. Results do
        not depend on it. Loading itself takes all of these.
    exact : bool
        Keep activations in float32 and caches in single precision: slower, to check against.
    kv_dtype : {"float16", "bfloat16", "int8", "float32"}, optional
        What states keep keys and values in; by default float16, with `exact` float32. int8 takes
        little more than half of float16's memory.

    Returns
    -------
    Transformer

    Raises
    ------
    ArgumentError
        `threads` or `kv_dtype` is none of the possible ones.
    FileMissingError, FileFormatError, TruncatedFileError
        A file is not there or breaks the rules of its format.
    UnsupportedError
        The architecture, a variant of it or a block type is not implemented.
    ModelError, TensorError
        Hyper-parameters and tensors contradict each other, or a weight is not finite.
    OutOfMemoryError
        The memory for the weights cannot be had.

    Examples
    --------
    >>> import rustllm
    >>> model = rustllm.load_model("smollm2-135m-instruct")  # doctest: +SKIP
    >>> pieces = model.generate("The capital of France is", temperature=0)  # doctest: +SKIP
    >>> "".join(pieces)  # doctest: +SKIP
    ' Paris.'
    """
    from rustllm._core.threads import available_threads
    from rustllm.models.head_start import HeadStart
    from rustllm.models.store import resolve_model

    if threads is None:
        threads = available_threads()
    if not 1 <= threads <= 256:
        raise ArgumentError(f"threads must be 1 to 256, not {threads}")
    if kv_dtype is not None:
        checked_kv_dtype(kv_dtype)
    path = Path(resolve_model(str(path_or_name)))
    with HeadStart(path) as head:
        # numpy and the engine are imported only now, while memory is made ready.
        from rustllm.models.transformer import Transformer
        from rustllm.models.weights import read_weights

        source = open_source(path)
        try:
            config = source.config
            plan = architecture(config.architecture, path)(config)
            # All cores for a moment, whatever the calls to come may use.
            weights = read_weights(
                source.weights(),
                plan,
                threads=max(threads, available_threads()),
                region=head.region,
            )
        except BaseException:
            source.close()
            raise
    return Transformer(
        config,
        plan,
        weights,
        threads=threads,
        exact=exact,
        kv_dtype=kv_dtype,
        tokenizer=source.tokenizer,
        end_ids=source.end_ids(),
        bos_id=source.bos_id(),
        metadata=source.metadata,
        path=path,
    )


def open_source(path: Path) -> ModelSource:
    """Open a model file or folder and read its configuration; no weight is touched."""
    if path.is_dir() or path.name.endswith(".safetensors.index.json"):
        from rustllm.models.hf_folder import FolderSource

        return FolderSource(path if path.is_dir() else path.parent)
    from rustllm.models.gguf_source import GGUFSource

    return GGUFSource(path)


def architecture(name: str, path: Path | None = None) -> Any:
    """Return the function that writes the plan of an architecture, built in or a plugin's."""
    from rustllm.plugins.builtin import lookup

    try:
        return lookup("architecture", name)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"the architecture {name!r} is not supported",
            path=path,
            key="general.architecture",
            hint=error.hint,
        ) from None
