"""Names of a package that are imported on first use (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A module's ``__getattr__`` and ``__dir__``, for names that other modules define.

    Parameters
    ----------
    package
        The module's ``__name__``.
    names
        Public name to the module that defines it; a name that is itself a module stands for itself.
    """
    namespace = vars(sys.modules[package])

    def get(name: str) -> object:
        module = names.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = import_module(module)
        if module != f"{package}.{name}":
            value = getattr(value, name)
        namespace[name] = value  # found without this function from now on
        return value

    def names_of() -> list[str]:
        return sorted({*namespace, *namespace["__all__"]})

    return get, names_of
