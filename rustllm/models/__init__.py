"""Models: named files, hyper-parameters, plans of architectures, and how they run."""

from typing import TYPE_CHECKING

__all__ = ["assemble", "load_model"]

if TYPE_CHECKING:
    from rustllm.models.assembling import assemble as assemble
    from rustllm.models.load import load_model as load_model


def __getattr__(name: str) -> object:
    # Finding and fetching files must not load the engine.
    if name == "load_model":
        from rustllm.models.load import load_model

        return load_model
    if name == "assemble":
        from rustllm.models.assembling import assemble

        return assemble
    raise AttributeError(f"module 'rustllm.models' has no attribute {name!r}")
