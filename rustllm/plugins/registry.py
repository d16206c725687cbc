"""The registry: what is offered under which kind and name, and by whom.

Writers stage what they add and commit it whole; a commit checks everything first and then swaps one
pointer to an immutable snapshot. Readers take no lock and never see half of a change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from rustllm.errors import ArgumentError, PluginError, StalePluginError, UnsupportedError

__all__ = ["Provider", "Registry", "Transaction"]

_UNSET: Any = object()
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Provider:
    """Something that an owner offers; the thing itself is imported on first use.

    Attributes
    ----------
    kind, name : str
    owner : str
        Id of the plugin that registered it.
    priority : int
    metadata : mapping
        Facts for those who choose between providers, such as file suffixes.

    Notes
    -----
    Safe to share between threads.
    """

    __slots__ = ("_check", "_load", "_value", "kind", "metadata", "name", "owner", "priority")

    def __init__(
        self,
        kind: str,
        name: str,
        owner: str,
        *,
        value: Any = _UNSET,
        load: Callable[[], Any] | None = None,
        priority: int = 0,
        metadata: Mapping[str, Any] = _NOTHING,
    ) -> None:
        if (value is _UNSET) == (load is None):
            raise ArgumentError("give either a value or a way to load it")
        self.kind = kind
        self.name = name
        self.owner = owner
        self.priority = priority
        self.metadata = metadata
        self._value = value
        self._load = load
        self._check: Callable[[Any], str | None] | None = None

    def get(self) -> Any:
        """Return what is offered, importing it if nobody has yet.

        Raises
        ------
        StalePluginError
            Its owner has been stopped since. Look the name up again.
        PluginError
            It cannot be imported, or is not what its kind asks for.
        """
        value = self._value
        if value is not _UNSET:
            return value
        load = self._load
        if load is None:
            raise StalePluginError(
                f"{self.kind} {self.name!r} was offered by plugin {self.owner}, which has stopped",
                hint="look the name up again",
                plugin=self.owner,
            )
        try:
            value = load()
        except Exception as error:
            raise PluginError(
                f"{self.kind} {self.name!r} of plugin {self.owner} cannot be loaded: "
                f"{type(error).__name__}: {error}",
                plugin=self.owner,
            ) from error
        self._refuse_wrong(value)
        # Two threads may get here at once; both loaded the same thing. `_revoke` may come between,
        # so the value is kept only while the way to load it is still there.
        if self._load is not None:
            self._value = value
            if self._load is None:
                self._value = _UNSET
        return value

    def _refuse_wrong(self, value: Any) -> None:
        complaint = self._check(value) if self._check is not None else None
        if complaint:
            raise PluginError(
                f"{self.kind} {self.name!r} of plugin {self.owner} {complaint}", plugin=self.owner
            )

    def _revoke(self) -> None:
        self._load = None
        self._value = _UNSET

    def __repr__(self) -> str:
        return f"<Provider {self.kind} {self.name!r} of {self.owner}>"


class _Snapshot:
    """One state of the registry; never changed after it is built."""

    __slots__ = ("best", "generation", "kinds", "providers", "table")

    def __init__(self, providers: tuple[Provider, ...], generation: int) -> None:
        table: dict[tuple[str, str], list[Provider]] = {}
        for provider in providers:
            table.setdefault((provider.kind, provider.name), []).append(provider)
        # sort() is stable: of equal priorities, which only one owner can hold, the first stays
        self.table = {
            key: tuple(sorted(found, key=lambda provider: -provider.priority))
            for key, found in table.items()
        }
        self.best = {key: found[0] for key, found in self.table.items()}
        kinds: dict[str, list[str]] = {}
        for kind, name in self.table:
            kinds.setdefault(kind, []).append(name)
        self.kinds = {kind: tuple(sorted(names)) for kind, names in sorted(kinds.items())}
        self.providers = providers
        self.generation = generation


class Transaction:
    """Additions of one owner, seen by nobody until they are committed together."""

    def __init__(self, registry: Registry, owner: str) -> None:
        self.registry = registry
        self.owner = owner
        self._staged: list[Provider] | None = []

    @property
    def over(self) -> bool:
        """Whether it has been committed or abandoned."""
        return self._staged is None

    def add(
        self,
        kind: str,
        name: str,
        value: Any = _UNSET,
        *,
        load: Callable[[], Any] | None = None,
        priority: int = 0,
        metadata: Mapping[str, Any] = _NOTHING,
    ) -> Provider:
        """Stage one provider, either a `value` or a function that loads it on first use.

        Raises
        ------
        PluginError
            The transaction is over.
        ArgumentError
            Both or neither of `value` and `load` are given, or a name is not text.
        """
        if self._staged is None:
            raise PluginError("this transaction is over", plugin=self.owner)
        if not (isinstance(kind, str) and kind and isinstance(name, str) and name):
            raise ArgumentError("kind and name must be text that is not empty")
        provider = Provider(
            kind, name, self.owner, value=value, load=load, priority=priority, metadata=metadata
        )
        self._staged.append(provider)
        return provider

    def check(self) -> None:
        """Raise what :meth:`commit` would raise now, and change nothing."""
        self.registry._checked(self._staged or [])

    def commit(self) -> None:
        """Make every addition visible at once.

        Raises
        ------
        PluginError
            Another provider has the same kind, name and priority, or a value is not what its kind
            asks for; then nothing is added.
        """
        if self._staged is None:
            raise PluginError("this transaction is over", plugin=self.owner)
        self.registry._add(self._staged)
        self._staged = None

    def abandon(self) -> None:
        """Forget every addition."""
        self._staged = None

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.abandon()
        elif self._staged is not None:
            self.commit()


class Registry:
    """Providers by kind and name.

    Notes
    -----
    Reading takes no lock: every method reads one pointer to a snapshot that never changes. Writing
    is serialised by a lock that is never held while foreign code runs. A lookup is one dictionary
    access; a commit costs O(n log n) in the number of providers.

    Examples
    --------
    >>> from rustllm import Registry
    >>> registry = Registry()
    >>> with registry.transaction("acme.case") as stage:
    ...     _ = stage.add("filter", "upper", str.upper)
    ...     _ = stage.add("filter", "lower", str.lower)
    >>> registry.get("filter", "upper")("abc"), registry.names("filter")
    ('ABC', ('lower', 'upper'))
    """

    def __init__(self) -> None:
        self._renew_locks()
        self._snapshot = _Snapshot((), 0)
        self._checks: dict[str, Callable[[Any], str | None]] = {}

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()

    @property
    def generation(self) -> int:
        """How many times the registry has changed."""
        return self._snapshot.generation

    def define_kind(self, kind: str, check: Callable[[Any], str | None]) -> None:
        """Let `check` look at every new thing of this kind; it returns a complaint, or None."""
        with self._lock:
            self._checks = {**self._checks, kind: check}

    def find(self, kind: str, name: str) -> Provider | None:
        """Return the provider of highest priority, or None. One dictionary access."""
        return self._snapshot.best.get((kind, name))

    def get(self, kind: str, name: str) -> Any:
        """Return what is offered under `kind` and `name`.

        Raises
        ------
        UnsupportedError
            Nothing is; the message lists what there is. Fields: ``kind``, ``name``.
        """
        provider = self._snapshot.best.get((kind, name))
        if provider is None:
            known = ", ".join(self.names(kind)) or "none"
            raise UnsupportedError(
                f"no {kind} {name!r}", hint=f"known: {known}", kind=kind, name=name
            )
        return provider.get()

    def all(self, kind: str, name: str) -> tuple[Provider, ...]:
        """Return every provider of `kind` and `name`, highest priority first."""
        return self._snapshot.table.get((kind, name), ())

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names offered under `kind`, sorted."""
        return self._snapshot.kinds.get(kind, ())

    def kinds(self) -> tuple[str, ...]:
        """Return every kind of which there is something, sorted."""
        return tuple(self._snapshot.kinds)

    def providers(self, kind: str | None = None) -> tuple[Provider, ...]:
        """Return the best provider of each name of `kind` (or of all), sorted by kind and name."""
        snapshot = self._snapshot
        kinds = snapshot.kinds if kind is None else (kind,)
        return tuple(snapshot.best[k, name] for k in kinds for name in snapshot.kinds.get(k, ()))

    def owned_by(self, owner: str) -> tuple[Provider, ...]:
        """Return everything that `owner` has registered."""
        return tuple(p for p in self._snapshot.providers if p.owner == owner)

    def __iter__(self) -> Iterator[Provider]:
        return iter(self._snapshot.providers)

    def __len__(self) -> int:
        return len(self._snapshot.providers)

    def transaction(self, owner: str) -> Transaction:
        """Start staging additions of `owner`; leaving the ``with`` block commits them."""
        return Transaction(self, owner)

    def remove_owner(self, owner: str) -> tuple[Provider, ...]:
        """Take away everything of `owner` at once; return what was taken away.

        Handles to it raise :class:`~rustllm.errors.StalePluginError` from then on.
        """
        with self._lock:
            snapshot = self._snapshot
            gone = tuple(p for p in snapshot.providers if p.owner == owner)
            if gone:
                kept = tuple(p for p in snapshot.providers if p.owner != owner)
                self._snapshot = _Snapshot(kept, snapshot.generation + 1)
        for provider in gone:
            provider._revoke()
        return gone

    def _checked(self, staged: Iterable[Provider]) -> None:
        """Run checks of kinds, outside the lock, and look for clashes."""
        checks = self._checks
        for provider in staged:
            provider._check = checks.get(provider.kind)
            if provider._value is not _UNSET:
                provider._refuse_wrong(provider._value)
        self._refuse_clashes(self._snapshot, staged)

    @staticmethod
    def _refuse_clashes(snapshot: _Snapshot, staged: Iterable[Provider]) -> None:
        new: dict[tuple[str, str, int], Provider] = {}
        for provider in staged:
            identity = (provider.kind, provider.name, provider.priority)
            other = new.get(identity)
            for there in snapshot.table.get(identity[:2], ()):
                if there.priority == provider.priority:
                    other = there
            if other is not None:
                raise PluginError(
                    f"{provider.kind} {provider.name!r} is offered by {other.owner} and by "
                    f"{provider.owner}, both with priority {provider.priority}",
                    hint="disable one of them, or give one another priority",
                    plugin=provider.owner,
                    other=other.owner,
                )
            new[identity] = provider

    def _add(self, staged: list[Provider]) -> None:
        self._checked(staged)
        with self._lock:
            snapshot = self._snapshot
            self._refuse_clashes(snapshot, staged)  # again: another writer may have come first
            if staged:
                everything = (*snapshot.providers, *staged)
                self._snapshot = _Snapshot(everything, snapshot.generation + 1)
