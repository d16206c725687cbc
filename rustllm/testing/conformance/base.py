"""What the kits have in common: a subject to make, checks named ``test_*``, and a runner."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Conformance", "expect"]

SubjectT = TypeVar("SubjectT")


class Conformance(ABC, Generic[SubjectT]):
    """Checks that every implementation of a trait has to pass.

    Derive a class whose name starts with ``Test``, give `make`, and pytest runs the checks; or call
    `run`, which needs no test runner. Attributes say what the implementation does not claim.
    """

    @abstractmethod
    def make(self) -> SubjectT:
        """Return the implementation, new or shared."""

    @classmethod
    def checks(cls) -> list[str]:
        """Names of the checks."""
        return sorted(name for name in dir(cls) if name.startswith("test_"))

    def run(self) -> None:
        """Run every check; AssertionError lists those that failed.

        Examples
        --------
        >>> from rustllm.testing import ByteTokenizer, TokenizerConformance
        >>> class Mine(TokenizerConformance):
        ...     def make(self):
        ...         return ByteTokenizer(["<end>"])
        >>> Mine().run()
        """
        failures = []
        for name in self.checks():
            try:
                getattr(self, name)()
            except Exception:
                failures.append(f"{name}: {traceback.format_exc()}")
        if failures:
            raise AssertionError(f"{len(failures)} checks failed\n\n" + "\n".join(failures))


def expect(
    kinds: type[Exception] | tuple[type[Exception], ...],
    call: Callable[..., Any],
    *arguments: Any,
    **options: Any,
) -> Any:
    """Return the error of one of `kinds` that the call raises; AssertionError if it does not."""
    names = kinds.__name__ if isinstance(kinds, type) else " or ".join(k.__name__ for k in kinds)
    try:
        result = call(*arguments, **options)
    except kinds as error:
        return error
    except Exception as error:
        raise AssertionError(f"raised {type(error).__name__} and not {names}: {error}") from error
    raise AssertionError(f"did not raise {names}, and returned {result!r}")


def generate_all(model: Any, *arguments: Any, **options: Any) -> list[Any]:
    """Return all pieces of a generation."""
    return list(model.generate(*arguments, **options))
