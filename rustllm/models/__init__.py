"""Models: named files, hyper-parameters, plans of architectures, and how they run."""

from typing import TYPE_CHECKING

from rustllm._lazy import lazy_names

__all__ = ["assemble", "load_model"]

if TYPE_CHECKING:
    from rustllm.models.assembling import assemble as assemble
    from rustllm.models.load import load_model as load_model

# Finding and fetching files must not load the engine.
__getattr__, __dir__ = lazy_names(
    __name__,
    {"assemble": "rustllm.models.assembling", "load_model": "rustllm.models.load"},
)
