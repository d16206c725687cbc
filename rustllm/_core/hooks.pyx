"""Calls from the library to every plugin that implements a hook.

The functions to call are worked out when a plugin comes or goes, and stand ready in a tuple that
is swapped whole; a call reads one pointer, takes no lock and makes one C call per function.
"""

cimport cython
from cpython.object cimport PyObject

cdef extern from "Python.h":
    ctypedef struct PyTupleObject:
        PyObject *ob_item[1]
    object PyObject_Vectorcall(object function, PyObject *const *args, size_t n, PyObject *names)


cdef class Hook:
    """One hook: call it and every implementation is called, in order.

    Parameters
    ----------
    name : str
    on_error : callable, optional
        ``on_error(owner, exception)`` is told of an implementation that raises, and the others are
        called all the same. Without it the exception goes to the caller, with a note that names
        the owner.

    Notes
    -----
    Arguments are positional. Results that are ``None`` are left out, as an implementation that has
    nothing to say returns nothing. Safe to call from any number of threads while implementations
    change: each call sees either all of the old ones or all of the new ones.

    Examples
    --------
    >>> from rustllm.plugins.hooks import Hook
    >>> hook = Hook("normalize")
    >>> hook.set([("acme.lower", str.lower), ("acme.strip", str.strip)])
    >>> hook(" Ab ")
    [' ab ', 'Ab']
    >>> hook.first(" Ab ")
    ' ab '
    """

    cdef readonly str name
    cdef object _on_error
    # (functions, owners): one tuple, so that a reader can never see halves of two states
    cdef tuple _table

    def __init__(self, str name not None, on_error=None):
        self.name = name
        self._on_error = on_error
        self._table = ((), ())

    def set(self, implementations):
        """Replace all implementations by an iterable of ``(owner, function)``, in calling order."""
        pairs = [(owner, function) for owner, function in implementations]
        functions = tuple([function for _, function in pairs])
        owners = tuple([owner for owner, _ in pairs])
        for function in functions:
            if not callable(function):
                raise TypeError(f"hook {self.name}: {function!r} cannot be called")
        with cython.critical_section(self):
            self._table = (functions, owners)

    cdef tuple _now(self):
        # Without the GIL a pointer may not be read while it is swapped; with it this is one read.
        with cython.critical_section(self):
            table = self._table
        return table

    @property
    def implementations(self):
        """The ``(owner, function)`` pairs, in calling order."""
        cdef tuple table = self._now()
        return tuple(zip(table[1], table[0]))

    def __len__(self):
        return len(<tuple>self._now()[0])

    def __bool__(self):
        return len(<tuple>self._now()[0]) > 0

    def __call__(self, *args):
        cdef tuple table = self._now()
        cdef tuple functions = <tuple>table[0]
        cdef Py_ssize_t i, n = len(functions)
        cdef size_t n_args = <size_t>len(args)
        cdef PyObject *const *items = (<PyTupleObject *><PyObject *>args).ob_item
        cdef list results = []
        for i in range(n):
            try:
                result = PyObject_Vectorcall(<object>functions[i], items, n_args, NULL)
            except Exception as error:
                self._failed((<tuple>table[1])[i], error)
                continue
            if result is not None:
                results.append(result)
        return results

    def first(self, *args):
        """Call implementations in order until one returns something; return that, or None."""
        cdef tuple table = self._now()
        cdef tuple functions = <tuple>table[0]
        cdef Py_ssize_t i, n = len(functions)
        cdef size_t n_args = <size_t>len(args)
        cdef PyObject *const *items = (<PyTupleObject *><PyObject *>args).ob_item
        for i in range(n):
            try:
                result = PyObject_Vectorcall(<object>functions[i], items, n_args, NULL)
            except Exception as error:
                self._failed((<tuple>table[1])[i], error)
                continue
            if result is not None:
                return result
        return None

    cdef int _failed(self, object owner, object error) except -1:
        error.add_note(f"raised in hook {self.name!r} by plugin {owner!r}")
        if self._on_error is None:
            raise error
        self._on_error(owner, error)
        return 0
