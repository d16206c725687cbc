"""One object, and one small number, for each different text."""

cimport cython

from rustllm._core.status cimport BAD_ARGUMENT, LIMIT_REACHED, failure
from rustllm._core.view cimport TextSlice


cdef class Interner:
    """One object, and one small number, for each different text.

    Parameters
    ----------
    limit : int, optional
        Most texts to keep.

    Notes
    -----
    A text that is known costs one look-up by its bytes where they are, and no copy; a new one is
    copied out of its source, which is not kept.

    Thread safety: any number of threads.

    Examples
    --------
    >>> from rustllm import TextSlice
    >>> from rustllm.memory import Interner
    >>> names = Interner()
    >>> [names.id(word) for word in TextSlice("to be or not to be").fields()]
    [0, 1, 2, 3, 0, 1]
    >>> str(names.text(3)), len(names)
    ('not', 4)
    """

    cdef dict _ids
    cdef list _texts
    cdef readonly object limit

    def __init__(self, limit=None):
        self._ids = {}
        self._texts = []
        self.limit = limit

    def id(self, text):
        """The number of `text` (a str or TextSlice), counted from 0 in order of first use.

        Raises
        ------
        MemoryLimitError
            It is new, and as many as the limit allows are kept.
        ArgumentError
            It is no text.
        """
        cdef TextSlice owned
        number = self._ids.get(text) if isinstance(text, (str, TextSlice)) else None
        if number is None:
            # The copy is made, checked and hashed first: other threads may run meanwhile. From the
            # second look on nothing lets them.
            owned = _owned_text(text)
            hash(owned)
            with cython.critical_section(self):
                number = self._ids.get(owned)
                if number is None:
                    if self.limit is not None and len(self._texts) >= self.limit:
                        raise _full(self.limit)
                    number = len(self._texts)
                    self._texts.append(owned)
                    self._ids[owned] = number
        return number

    def intern(self, text):
        """The one TextSlice kept for all texts equal to `text`. Raises as :meth:`id`."""
        return self._texts[self.id(text)]

    def text(self, Py_ssize_t number):
        """The text that has this number; an IndexError when none has."""
        if not 0 <= number < len(self._texts):
            raise IndexError(f"no text has the number {number}")
        return self._texts[number]

    def __contains__(self, text):
        return text in self._ids

    def __len__(self):
        return len(self._texts)


cdef TextSlice _owned_text(text):
    if isinstance(text, TextSlice):
        return (<TextSlice> text).to_owned()
    if isinstance(text, str):
        return TextSlice(text)
    raise failure(BAD_ARGUMENT, f"text expected, not {type(text).__name__}", None)


cdef object _full(limit):
    return failure(LIMIT_REACHED, f"{limit} texts are kept already", {"limit": limit})
