from types import TracebackType
from typing import Any

class ErrorFrame:
    """What was being done, and with which values, when an error passed through.

    Attributes
    ----------
    what : str
        The activity, as given to :class:`error_context`.
    fields : dict
        The values, as given.
    """

    what: str
    fields: dict[str, Any]
    def __init__(self, what: str, fields: dict[str, Any]) -> None: ...

class error_context:  # noqa: N801 (reads as a statement: `with error_context(...)`)
    """Attach what was being done to every exception that passes through."""

    what: str
    fields: dict[str, Any]
    def __init__(self, what: str, /, **fields: Any) -> None: ...
    def update(self, **fields: Any) -> None: ...
    def __enter__(self) -> error_context: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool: ...

def frames_of(error: BaseException) -> tuple[ErrorFrame, ...]: ...
def attach(error: BaseException, frames: tuple[ErrorFrame, ...]) -> None: ...
