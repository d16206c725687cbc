"""Data that is borrowed until it is first written to."""

import threading
from types import GenericAlias

cimport cython

from rustllm._core.status cimport BAD_ARGUMENT, failure

# Arrays that frozen borrows have made read-only: id -> [array, number of borrows]. The array is
# kept alive, so its id stays its own.
cdef dict _frozen = {}
cdef object _frozen_lock = threading.Lock()


cdef object _new_lock():
    try:
        return threading.Lock()
    except RuntimeError as error:       # "can't allocate lock"
        raise MemoryError(str(error)) from None


cdef bint _freeze(array) except -1:
    """Make `array` read-only for one borrow more; False when it already was, for other reasons."""
    with _frozen_lock:
        entry = _frozen.get(id(array))
        if entry is not None:
            entry[1] += 1
            return True
        if not array.flags.writeable:
            return False
        _frozen[id(array)] = [array, 1]
        try:
            array.flags.writeable = False
        except BaseException:
            del _frozen[id(array)]
            raise
    return True


cdef int _thaw(array) except -1:
    with _frozen_lock:
        entry = _frozen[id(array)]
        if entry[1] == 1:
            array.flags.writeable = True
            del _frozen[id(array)]
        else:
            entry[1] -= 1
    return 0


cdef class Cow:
    """Data that is borrowed until it is first written to, and copied then.

    Parameters
    ----------
    source : numpy.ndarray or buffer
        An array, or bytes: :class:`bytes`, :class:`bytearray`, :class:`mmap.mmap`, a
        :class:`~rustllm.memory.ByteView` or another buffer, taken as flat bytes.
    freeze : bool, optional
        Make a writable source array read-only for as long as it is borrowed, so that nobody changes
        it under the borrower. (Views that others took before stay writable.) Immutable sources need
        no freezing; other writable buffers than arrays cannot be frozen.

    Attributes
    ----------
    is_borrowed : bool
        Whether the data is still the source's.
    view : numpy.ndarray or memoryview
        The data now, read-only, without a copy.
    nbytes : int
        Size in bytes.

    Raises
    ------
    TypeError
        The source is neither an array nor a buffer.
    ArgumentError
        The source cannot be frozen.

    Notes
    -----
    The source is never written to. :meth:`to_mut` copies once, the first time.

    Thread safety: any number of threads may read; :meth:`to_mut` copies once however many call it,
    and gives all of them the same object, whose contents are theirs to synchronise. A view taken
    before the copy goes on showing the source.

    Examples
    --------
    >>> import numpy as np
    >>> from rustllm import Cow
    >>> weights = np.zeros(3)
    >>> mine = Cow(weights)
    >>> mine.is_borrowed, float(mine.view.sum())
    (True, 0.0)
    >>> mine.to_mut()[1] = 5
    >>> mine.is_borrowed, float(mine.view.sum()), float(weights.sum())
    (False, 5.0, 0.0)
    """

    cdef object _data           # the source's read-only view, or the owned array or bytearray
    cdef object _frozen_source  # the array to thaw when the borrow ends
    cdef object _lock
    cdef bint _is_array
    cdef bint _is_borrowed
    cdef object __weakref__

    __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, source, *, bint freeze=False):
        import numpy
        if self._lock is not None:
            raise failure(BAD_ARGUMENT, "a Cow is initialised once", None)
        self._is_array = isinstance(source, numpy.ndarray)
        if self._is_array:
            data = source.view(numpy.ndarray)
            data.flags.writeable = False
            if freeze and _freeze(source):
                self._frozen_source = source
        else:
            data = memoryview(source)
            if not data.c_contiguous:
                raise failure(BAD_ARGUMENT, "the buffer is not contiguous", None)
            if freeze and not data.readonly:
                kind = type(source).__name__
                raise failure(BAD_ARGUMENT, f"a {kind} cannot be frozen, only an array", None)
            data = (data.cast("B") if data.nbytes else memoryview(b"")).toreadonly()
        self._data = data
        self._is_borrowed = True
        self._lock = _new_lock()

    def __del__(self):
        self._end_borrow()

    cdef object _now(self):
        # Without the GIL a pointer may not be read while it is swapped; with it this is one read.
        with cython.critical_section(self):
            data = self._data
        return data

    def _end_borrow(self):
        source = self._frozen_source
        self._frozen_source = None
        if source is not None:
            _thaw(source)

    @property
    def is_borrowed(self):
        return self._is_borrowed

    @property
    def view(self):
        # One read of _data: it is replaced as a whole, and its kind says whether it is owned.
        data = self._now()
        if not self._is_array:
            return memoryview(data).toreadonly()
        data = data.view()
        data.flags.writeable = False
        return data

    @property
    def nbytes(self):
        return memoryview(self._now()).nbytes

    def to_mut(self):
        """The data for writing; copied out of the source by the first call.

        Returns
        -------
        numpy.ndarray or bytearray
            The same object each time.

        Raises
        ------
        MemoryError
            There is no memory for the copy; the data is still borrowed.
        """
        if self._is_borrowed:
            with self._lock:
                if self._is_borrowed:
                    copy = self._copy()
                    with cython.critical_section(self):
                        self._data = copy
                        self._is_borrowed = False
                    self._end_borrow()
        return self._now()

    def _copy(self):
        data = self._now()
        return data.copy(order="K") if self._is_array else bytearray(data)

    def to_owned(self):
        """A copy that nobody else holds; this object stays as it is.

        Returns
        -------
        numpy.ndarray or bytearray
            A new one each time.
        """
        return self._copy()

    def clone(self):
        """Another Cow of the same data: a further borrow while borrowed, a copy once owned."""
        cdef Cow other = Cow.__new__(Cow)
        with self._lock:
            other._is_array = self._is_array
            other._is_borrowed = self._is_borrowed
            other._data = self._data if self._is_borrowed else self._copy()
            if self._frozen_source is not None and _freeze(self._frozen_source):
                other._frozen_source = self._frozen_source
        other._lock = _new_lock()
        return other

    def __len__(self):
        return len(self._now())

    def __getitem__(self, index):
        found = self.view[index]
        return found

    def __bytes__(self):
        data = self._now()
        return data.tobytes() if self._is_array else bytes(data)

    def __array__(self, dtype=None, copy=None):
        import numpy
        view = self.view if self._is_array else numpy.frombuffer(self._now(), numpy.uint8)
        if not self._is_array:
            view.flags.writeable = False
        if dtype is not None and view.dtype != dtype:
            if copy is False:
                raise ValueError("another dtype needs a copy")
            return view.astype(dtype)
        return view.copy() if copy else view

    def __reduce__(self):
        data = self._now()
        return Cow, (data if self._is_array else bytes(data),)

    def __repr__(self):
        return f"<{'borrowed' if self._is_borrowed else 'owned'} Cow of {self.nbytes} bytes>"
