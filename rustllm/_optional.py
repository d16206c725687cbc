"""Packages that an extra brings: imported where they are used, and named where they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rustllm.errors import MissingDependencyError

__all__ = ["need"]


def need(module: str, extra: str, what: str, **fields: Any) -> Any:
    """Import a module that rustllm works without.

    Parameters
    ----------
    module : str
        Its name; the package is what stands before the first dot.
    extra : str
        The extra of rustllm that brings it.
    what : str
        What cannot be done without it, as the message begins: ``"tables need"``.
    **fields
        More fields of the error.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f"{what} the package {package}",
            hint=f'pip install "rustllm[{extra}]"',
            extra=extra,
            package=package,
            **fields,
        ) from error
