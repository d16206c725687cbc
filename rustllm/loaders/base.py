"""What every opened file has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rustllm.loaders.detect import FileFormat

__all__ = ["Loader"]


class Loader(ABC):
    """An opened file: where it is, what it is, and that it can be closed.

    Attributes
    ----------
    path : str
    format : FileFormat
        What :func:`~rustllm.loaders.detect.detect_format` told.
    """

    path: str

    @property
    @abstractmethod
    def format(self) -> FileFormat: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
