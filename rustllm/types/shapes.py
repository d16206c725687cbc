"""Arrays whose sizes are part of their type, as literal numbers.

``FixedWindow[Literal[8]]`` holds eight tokens, ``FixedMatrix[Literal[2], Literal[3]]`` is two by
three. A type checker refuses to put a window of four where one of eight is asked for, or to
multiply matrices that do not fit; at run time the sizes are checked where a value is made and where
two meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast, get_args, get_origin

import numpy as np

from rustllm.errors import ArgumentError
from rustllm.types.aliases import TokenArray
from rustllm.types.batch import as_token_array

__all__ = ["FixedMatrix", "FixedWindow"]

N = TypeVar("N", bound=int)
R = TypeVar("R", bound=int)
K = TypeVar("K", bound=int)
C = TypeVar("C", bound=int)


class _Sized:
    """Gives a generic class a subclass for each tuple of literal sizes, made once."""

    _sizes: ClassVar[tuple[int, ...] | None] = None
    _known: ClassVar[dict[tuple[type, tuple[int, ...]], type]] = {}

    def __class_getitem__(cls, parameters: Any) -> Any:
        given = parameters if isinstance(parameters, tuple) else (parameters,)
        sizes = [_literal_size(parameter) for parameter in given]
        if None in sizes or cls._sizes is not None:
            # A type variable or a plain int: an annotation, with nothing to check at run time.
            return super().__class_getitem__(parameters)  # type: ignore[misc]
        return cls._with_sizes(cast("tuple[int, ...]", tuple(sizes)))

    @classmethod
    def _with_sizes(cls, sizes: tuple[int, ...]) -> Any:
        base = cls if cls._sizes is None else cls.__mro__[1]
        known = _Sized._known.get((base, sizes))
        if known is None:
            name = f"{base.__name__}[{', '.join(map(str, sizes))}]"
            body = {"_sizes": sizes, "__slots__": (), "__module__": base.__module__}
            # setdefault: of two threads that make one at once, both get the first.
            known = _Sized._known.setdefault((base, sizes), type(base)(name, (base,), body))
        return known

    @classmethod
    def _needed_sizes(cls) -> tuple[int, ...]:
        if cls._sizes is None:
            raise ArgumentError(
                f"{cls.__name__} needs its sizes", hint=f"{cls.__name__}[Literal[8], ...](...)"
            )
        return cls._sizes


def _literal_size(parameter: Any) -> int | None:
    if get_origin(parameter) is not Literal:
        return None
    values = get_args(parameter)
    if len(values) != 1 or type(values[0]) is not int or values[0] < 0:
        raise ArgumentError(f"a size is one literal number from 0, got {parameter}")
    return values[0]


class FixedWindow(_Sized, Generic[N]):
    """Exactly N token ids, N being a literal type.

    Parameters
    ----------
    ids : iterable of int
        As many as the type says.

    Raises
    ------
    ArgumentError
        There are more or fewer, or the class was not given its size.

    Notes
    -----
    Immutable.

    Examples
    --------
    >>> from typing import Literal
    >>> from rustllm.types import FixedWindow
    >>> window = FixedWindow[Literal[3]]([5, 6, 7])
    >>> window.slide(8).ids.tolist(), len(window)
    ([6, 7, 8], 3)
    >>> FixedWindow[Literal[3]]([1, 2])
    Traceback (most recent call last):
        ...
    rustllm.errors.ArgumentError: a window of 3 cannot hold 2 ids
    """

    __slots__ = ("ids",)

    ids: TokenArray

    def __init__(self, ids: Iterable[int] | TokenArray) -> None:
        (size,) = self._needed_sizes()
        array = as_token_array(ids)
        if len(array) != size:
            raise ArgumentError(f"a window of {size} cannot hold {len(array)} ids")
        self.ids = array.view()
        self.ids.flags.writeable = False

    @classmethod
    def over(cls, ids: Iterable[int] | TokenArray, *, stride: int = 1) -> Iterator[Self]:
        """Yield every full window over `ids`, as views."""
        from rustllm.iterators import windows

        (size,) = cls._needed_sizes()
        return map(cls, windows(as_token_array(ids), size, stride=stride))

    def slide(self, id: int) -> FixedWindow[N]:
        """Return the window one token further: without its first, with `id` at its end."""
        return type(self)(np.append(self.ids[1:], as_token_array([id])))

    def matches(self, other: FixedWindow[N]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return where two windows of one size hold the same id, ``bool [N]``.

        Raises
        ------
        ArgumentError
            The sizes differ.
        """
        if len(self) != len(other):
            raise ArgumentError(f"windows of {len(self)} and {len(other)} cannot be compared")
        return cast("np.ndarray[Any, np.dtype[np.bool_]]", self.ids == other.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FixedWindow):
            return NotImplemented
        return np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash(self.ids.tobytes())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ids.tolist()})"


class FixedMatrix(_Sized, Generic[R, C]):
    """A float32 matrix of R rows and C columns, both literal types.

    Parameters
    ----------
    values : array_like, shape [R, C]

    Raises
    ------
    ArgumentError
        The shape differs, or the class was not given its sizes.

    Notes
    -----
    Immutable.

    Examples
    --------
    >>> from typing import Literal
    >>> from rustllm.types import FixedMatrix
    >>> a = FixedMatrix[Literal[1], Literal[2]]([[1, 2]])
    >>> b = FixedMatrix[Literal[2], Literal[3]]([[1, 0, 1], [0, 1, 1]])
    >>> (a @ b).values.tolist(), (a @ b).shape
    ([[1.0, 2.0, 3.0]], (1, 3))
    """

    __slots__ = ("values",)
    __array_ufunc__ = None  # so that an array on the other side does not take the operator over

    values: np.ndarray[Any, np.dtype[np.float32]]

    def __init__(self, values: Any) -> None:
        shape = self._needed_sizes()
        array = np.asarray(values, dtype=np.float32)
        if array.shape != shape:
            raise ArgumentError(f"a matrix of {shape} cannot hold values of {array.shape}")
        self.values = array.view()
        self.values.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return cast("tuple[int, int]", self._needed_sizes())

    @property
    def T(self) -> FixedMatrix[C, R]:  # noqa: N802  numpy's name
        """The transpose, a view."""
        rows, columns = self.shape
        return cast("FixedMatrix[C, R]", self._with_sizes((columns, rows))(self.values.T))

    def __matmul__(self, other: FixedMatrix[C, K]) -> FixedMatrix[R, K]:
        if not isinstance(other, FixedMatrix):
            return NotImplemented
        if self.shape[1] != other.shape[0]:
            raise ArgumentError(f"matrices of {self.shape} and {other.shape} cannot be multiplied")
        product = self.values @ other.values
        return cast("FixedMatrix[R, K]", self._with_sizes(product.shape)(product))

    def __add__(self, other: FixedMatrix[R, C]) -> FixedMatrix[R, C]:
        if not isinstance(other, FixedMatrix):
            return NotImplemented
        if self.shape != other.shape:
            raise ArgumentError(f"matrices of {self.shape} and {other.shape} cannot be added")
        return type(self)(self.values + other.values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.values.tolist()})"
