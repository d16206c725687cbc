"""What a plugin does: it is set up with a context, started, and stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    ContextT = TypeVar("ContextT", contravariant=True, default=Any)
else:
    from typing import TypeVar

    ContextT = TypeVar("ContextT", contravariant=True)

__all__ = ["Plugin"]


class Plugin(ABC, Generic[ContextT]):
    """Something that adds tokenizers, models, loaders or hooks to the library.

    The manager calls `setup`, `start` and `stop` in that order, each once, never two at a time.
    What is registered through the context in `setup` is released by the manager after `stop`, and
    also when `setup` or `start` fails; a plugin releases only what it got elsewhere. The type
    parameter is the class of the context.

    Examples
    --------
    >>> from rustllm.traits import Plugin
    >>> class Greeter(Plugin):
    ...     def setup(self, context):
    ...         context.append("ready")
    >>> log = []
    >>> plugin = Greeter()
    >>> plugin.setup(log); plugin.start(); plugin.stop()
    >>> log
    ['ready']
    """

    @abstractmethod
    def setup(self, context: ContextT) -> None:
        """Register what the plugin provides; open nothing, start nothing."""

    def start(self) -> None:  # noqa: B027  nothing to start is the common case
        """Take what running needs: threads, files, memory."""

    def stop(self) -> None:  # noqa: B027
        """Give back what `start` took. Called also after a `start` that failed half-way."""
