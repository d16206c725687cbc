"""Versions and version ranges by the rules of PEP 440.

A plugin's manifest says which versions of others it works with. Those rules have many corners
(pre-releases, post-releases, local labels, wildcards), so they are implemented once, here, and
held against the ``packaging`` library by a property test; ``packaging`` itself is not needed at
run time.
"""

from __future__ import annotations

import re
from functools import lru_cache, total_ordering
from typing import Any

from rustllm.errors import VersionError

__all__ = ["Version", "VersionRange"]

_MAX_LENGTH = 256  # of a version in text, so that no file can make us build huge integers

_PRE = r"[-_.]?(?P<pre_letter>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_number>[0-9]+)?"
_POST = r"-(?P<post_bare>[0-9]+)|[-_.]?(?P<post_word>post|rev|r)[-_.]?(?P<post_number>[0-9]+)?"
_DEV = r"[-_.]?(?P<dev_word>dev)[-_.]?(?P<dev_number>[0-9]+)?"
_LOCAL = r"\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*)"
_VERSION = re.compile(
    rf"v?(?:(?P<epoch>[0-9]+)!)?(?P<release>[0-9]+(?:\.[0-9]+)*)"
    rf"(?:{_PRE})?(?:{_POST})?(?:{_DEV})?(?:{_LOCAL})?",
    re.ASCII | re.IGNORECASE,
)
_CLAUSE = re.compile(r"(===|~=|==|!=|<=|>=|<|>)\s*(\S+)")
_LETTERS = {"alpha": "a", "beta": "b", "preview": "rc", "pre": "rc", "c": "rc"}
_INFINITY = float("inf")

# Sorts as the standard says: epoch, release without trailing zeros, then pre-, post- and
# development releases. A version that lacks a part sorts before or after those that have it.
_Key = tuple[int, tuple[int, ...], tuple[float, int], float, float]
_LocalKey = tuple[tuple[int, int, str], ...]
_Parts = tuple[
    int, tuple[int, ...], tuple[str, int] | None, int | None, int | None, tuple[int | str, ...]
]
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII).fullmatch


@total_ordering
class Version:
    """A version, parsed and comparable.

    Parameters
    ----------
    text : str
        For example ``"1.4.0"``, ``"2.0rc1"``, ``"1!3.0.post2+cpu"``.

    Attributes
    ----------
    epoch : int
    release : tuple of int
    pre : tuple of (str, int) or None
        ``("a" | "b" | "rc", number)``.
    post, dev : int or None
    local : tuple of (int or str)

    Raises
    ------
    VersionError
        The text is not a version of PEP 440.

    Notes
    -----
    Immutable, so shared between threads freely. Parsing is linear in the text, which may have at
    most 256 characters.

    Examples
    --------
    >>> from rustllm import Version
    >>> Version("1.10") > Version("1.9.2"), Version("1.0rc1") < Version("1.0")
    (True, True)
    >>> str(Version("v1.0-ALPHA.2"))
    '1.0a2'
    """

    __slots__ = ("_keys", "_parts")

    # Epoch, release, pre-, post- and development release, local label.
    _parts: _Parts
    # What versions are compared by, made when first asked for; two threads make the same.
    _keys: tuple[_Key, _LocalKey] | None

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise VersionError(f"a version is text, not {type(text).__name__}", version=text)
        if len(text) <= _MAX_LENGTH and _PLAIN(text):
            self._set((0, tuple(map(int, text.split("."))), None, None, None, ()))
            return
        stripped = text.strip()
        match = _VERSION.fullmatch(stripped) if len(stripped) <= _MAX_LENGTH else None
        if match is None:
            shown = stripped if len(stripped) <= 60 else stripped[:57] + "..."
            raise VersionError(
                f"{shown!r} is not a version",
                hint="write numbers with dots, as in 1.4.0 or 2.0rc1 (PEP 440)",
                version=shown,
            )
        part = match.group
        pre = None
        if part("pre_letter"):
            letter = part("pre_letter").lower()
            pre = (_LETTERS.get(letter, letter), int(part("pre_number") or 0))
        post = None
        if part("post_bare"):
            post = int(part("post_bare"))
        elif part("post_word"):
            post = int(part("post_number") or 0)
        dev = int(part("dev_number") or 0) if part("dev_word") else None
        local: tuple[int | str, ...] = ()
        if part("local"):
            pieces = re.split(r"[-_.]", part("local").lower())
            local = tuple(int(piece) if piece.isdigit() else piece for piece in pieces)
        release = tuple(int(number) for number in part("release").split("."))
        self._set((int(part("epoch") or 0), release, pre, post, dev, local))

    def _set(self, parts: _Parts) -> None:
        _put_parts(self, parts)
        _put_keys(self, None)

    @property
    def epoch(self) -> int:
        """Goes before everything else; 0 where none is written."""
        return self._parts[0]

    @property
    def release(self) -> tuple[int, ...]:
        """The numbers with dots between them."""
        return self._parts[1]

    @property
    def pre(self) -> tuple[str, int] | None:
        """Alpha, beta or candidate: ``("a" | "b" | "rc", number)``."""
        return self._parts[2]

    @property
    def post(self) -> int | None:
        """Number of the post-release."""
        return self._parts[3]

    @property
    def dev(self) -> int | None:
        """Number of the development release."""
        return self._parts[4]

    @property
    def local(self) -> tuple[int | str, ...]:
        """Parts of the local label."""
        return self._parts[5]

    @property
    def _key(self) -> _Key:
        return (self._keys or self._make_keys())[0]

    @property
    def _local_key(self) -> _LocalKey:
        return (self._keys or self._make_keys())[1]

    def _make_keys(self) -> tuple[_Key, _LocalKey]:
        parts = self._parts
        numeric = ((1, part, "") if isinstance(part, int) else (0, 0, part) for part in parts[5])
        keys = _sort_key(*parts[:5]), tuple(numeric)
        _put_keys(self, keys)
        return keys

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Version cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Version cannot be changed")

    @property
    def is_prerelease(self) -> bool:
        """Whether this is an alpha, beta, candidate or development release."""
        return self.pre is not None or self.dev is not None

    @property
    def public(self) -> str:
        """The version without its local label."""
        return str(self).split("+", 1)[0]

    def __str__(self) -> str:
        text = f"{self.epoch}!" if self.epoch else ""
        text += ".".join(map(str, self.release))
        if self.pre is not None:
            text += f"{self.pre[0]}{self.pre[1]}"
        if self.post is not None:
            text += f".post{self.post}"
        if self.dev is not None:
            text += f".dev{self.dev}"
        if self.local:
            text += "+" + ".".join(map(str, self.local))
        return text

    def __repr__(self) -> str:
        return f"Version({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return (self._keys or self._make_keys()) == (other._keys or other._make_keys())

    def __lt__(self, other: Version) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return (self._keys or self._make_keys()) < (other._keys or other._make_keys())

    def __hash__(self) -> int:
        return hash(self._keys or self._make_keys())

    def __reduce__(self) -> tuple[Any, ...]:
        return Version, (str(self),)


# Versions cannot be changed, so their parts are put past `__setattr__`.
_put_parts = Version._parts.__set__  # type: ignore[attr-defined,misc]
_put_keys = Version._keys.__set__  # type: ignore[union-attr,misc]


def _trim(release: tuple[int, ...]) -> tuple[int, ...]:
    end = len(release)
    while end > 0 and release[end - 1] == 0:
        end -= 1
    return release[:end]


def _sort_key(
    epoch: int,
    release: tuple[int, ...],
    pre: tuple[str, int] | None,
    post: int | None,
    dev: int | None,
) -> _Key:
    if pre is not None:
        stage: tuple[float, int] = ("a", "b", "rc").index(pre[0]), pre[1]
    elif post is None and dev is not None:
        stage = -_INFINITY, 0  # 1.0.dev1 comes before 1.0a1
    else:
        stage = _INFINITY, 0
    post_key = -_INFINITY if post is None else post
    dev_key = _INFINITY if dev is None else dev
    return epoch, _trim(release), stage, post_key, dev_key


@lru_cache(maxsize=512)
def _parse(text: str) -> Version:
    return Version(text)


class _Clause:
    """One comparison of a range, such as ``>=1.2``."""

    __slots__ = ("_bound", "_high", "_low", "_version", "operator", "text")

    _bound: _Key

    def __init__(self, operator: str, text: str) -> None:
        self.operator = operator
        self.text = text
        self._low: _Key | None = None
        self._high: _Key | None = None
        self._version: Version | None = None
        if operator == "===":
            return
        wild = operator in ("==", "!=") and text.endswith(".*")
        version = self._version = Version(text[:-2] if wild else text)
        self._bound = version._key
        epoch, release, pre, post, dev = (
            version.epoch,
            version.release,
            version.pre,
            version.post,
            version.dev,
        )
        if wild:
            if pre is not None or post is not None or dev is not None or version.local:
                raise VersionError(f"{operator}{text}: a wildcard follows plain numbers only")
            self._low = _sort_key(epoch, release, None, None, 0)
            self._high = _sort_key(epoch, (*release[:-1], release[-1] + 1), None, None, 0)
            return
        if version.local and operator not in ("==", "!="):
            raise VersionError(f"{operator}{text}: a local label goes with == and != only")
        if operator == "~=":
            if len(release) < 2:
                raise VersionError(
                    f"~={text}: needs two numbers or more", hint=f"write ~={text}.0 or =={text}.*"
                )
            self._low = version._key
            self._high = _sort_key(epoch, (*release[:-2], release[-2] + 1), None, None, 0)
        elif operator == "<":
            # "<1.0" leaves out 1.0's own pre-releases, unless the bound is one itself
            last_dev = dev if version.is_prerelease else 0
            self._high = _sort_key(epoch, release, pre, post, last_dev)
        elif operator == ">" and dev is not None:
            self._low = _sort_key(epoch, release, pre, post, dev + 1)
        elif operator == ">" and post is not None:
            self._low = _sort_key(epoch, release, pre, post + 1, 0)

    def admits(self, version: Version, written: Version | str) -> bool:
        operator = self.operator
        if operator == "===":
            return str(written).strip().lower() == self.text.lower()
        key = (version._keys or version._make_keys())[0]
        bound_key = self._bound
        if operator == ">":
            if self._low is not None:
                return key >= self._low
            # ">1.0" leaves out 1.0's own post-releases, all of which share its first three parts
            return key > bound_key and key[:3] != bound_key[:3]
        if operator == ">=":
            return key >= bound_key
        if operator == "<=":
            return key <= bound_key
        if operator == "<":
            return self._high is not None and key < self._high
        if self._low is not None and self._high is not None:  # ~=, and == or != with a wildcard
            return (self._low <= key < self._high) is not (operator == "!=")
        bound = self._version
        assert bound is not None
        same = key == bound_key and (not bound.local or version._local_key == bound._local_key)
        return same is not (operator == "!=")

    def canonical(self) -> str:
        wild = self.text.endswith(".*") and self.operator in ("==", "!=")
        text = self.text if self._version is None else str(self._version)
        return f"{self.operator}{text}{'.*' if wild else ''}"


@lru_cache(maxsize=512)
def _clause(operator: str, text: str) -> _Clause:
    return _Clause(operator, text)


class VersionRange:
    """A set of versions, such as ``">=1.2,<2"``.

    Parameters
    ----------
    text : str
        Comparisons with commas between them, all of which must hold; empty admits every version.
        Operators: ``==``, ``!=`` (both also with ``.*``), ``<``, ``<=``, ``>``, ``>=``, ``~=`` and
        ``===``.

    Raises
    ------
    VersionError
        The text is not a range.

    Notes
    -----
    Pre-releases count as members, since a plugin that is installed is installed on purpose; pass
    ``prereleases=False`` to leave them out. Immutable, so shared between threads freely.
    A membership test costs O(number of comparisons).

    Examples
    --------
    >>> from rustllm import VersionRange
    >>> supported = VersionRange(">=1.2,<2")
    >>> "1.9.1" in supported, "2.0rc1" in supported
    (True, False)
    >>> supported.contains("1.3b1", prereleases=False)
    False
    """

    __slots__ = ("_clauses",)

    _clauses: tuple[_Clause, ...]

    def __init__(self, text: str = "") -> None:
        if not isinstance(text, str):
            raise VersionError(f"a version range is text, not {type(text).__name__}")
        if len(text) > 16 * _MAX_LENGTH:
            raise VersionError(f"a version range of {len(text)} characters")
        clauses = []
        for piece in text.split(","):
            piece = piece.strip()
            if not piece:
                continue
            match = _CLAUSE.fullmatch(piece)
            if match is None:
                raise VersionError(
                    f"{piece!r} is not a version comparison",
                    hint="write an operator and a version, as in >=1.2,<2",
                )
            clauses.append(_clause(match[1], match[2]))
        object.__setattr__(self, "_clauses", tuple(clauses))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a VersionRange cannot be changed")

    def contains(self, version: Version | str, *, prereleases: bool = True) -> bool:
        """Whether `version` lies in the range.

        Parameters
        ----------
        version : Version or str
        prereleases : bool
            False leaves out every pre-release.

        Returns
        -------
        bool
        """
        if isinstance(version, Version):
            parsed = version
        else:
            # Version refuses what is no text.
            parsed = _parse(version) if isinstance(version, str) else Version(version)
        if not prereleases and parsed.is_prerelease:
            return False
        return all(clause.admits(parsed, version) for clause in self._clauses)

    def __contains__(self, version: Version | str) -> bool:
        return self.contains(version)

    def __and__(self, other: VersionRange) -> VersionRange:
        if not isinstance(other, VersionRange):
            return NotImplemented
        return VersionRange(",".join(filter(None, (str(self), str(other)))))

    def __str__(self) -> str:
        return ",".join(f"{clause.operator}{clause.text}" for clause in self._clauses)

    def __repr__(self) -> str:
        return f"VersionRange({str(self)!r})"

    def _identity(self) -> frozenset[str]:
        return frozenset(clause.canonical() for clause in self._clauses)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VersionRange):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __reduce__(self) -> tuple[Any, ...]:
        return VersionRange, (str(self),)
