"""Other people's engines, each an adapter in a file of its own and an extra of its own.

A corpus is made of units that each commit themselves (see `rustllm.corpus.tokenize`). An engine
only decides where a unit is done: whichever does them, and whatever it does twice or loses on the
way, the corpus has the same bytes. The folder must be the same for all machines, as on a shared
file system.

================  ====================================  =========================
module            engine                                extra
================  ====================================  =========================
``ray``           Ray tasks, Ray Data                   ``rustllm[ray]``
``hf``            ``datasets.Dataset.map``              ``rustllm[hf]``
``dask``          Dask futures                          ``rustllm[dask]``
``spark``         Spark, through ``mapInArrow``         ``rustllm[spark]``
``torch``         PyTorch data sets over a corpus       ``rustllm[torch]``
``transformers``  tokenizers of Hugging Face models     ``rustllm[transformers]``
================  ====================================  =========================

Nothing here is imported by the rest of the library.
"""

from typing import Any

from rustllm import _optional

__all__: list[str] = []


def need(module: str, extra: str) -> Any:
    """Import an engine; MissingDependencyError names the extra that brings it."""
    return _optional.need(module, extra, f"rustllm.integrations.{extra} needs")
