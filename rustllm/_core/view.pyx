"""Slices of memory that belongs to somebody else: bytes, and text in UTF-8.

A slice is a pointer, a length and a reference to what keeps the memory; cutting, comparing, hashing
and searching copy nothing. The source's buffer is exported once, however many slices are cut.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport Py_EQ, Py_GE, Py_GT, Py_LE, Py_LT, Py_NE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp

from rustllm._core.status cimport BAD_ARGUMENT, BAD_UTF8, failure
from rustllm._core.utf8 cimport is_ascii_bytes, utf8_count, utf8_valid_up_to

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* n_bytes) except NULL
    bint PyUnicode_IS_COMPACT_ASCII(object text) noexcept

cdef extern from "view.h" nogil:
    const void* rl_find(const void* data, size_t n, const void* needle, size_t m) noexcept

cdef extern from "view.h":
    Py_hash_t rl_hash_bytes(const void* data, Py_ssize_t n) noexcept

cdef Py_ssize_t GIL_FREE_BYTES = 1 << 16


@cython.final
@cython.freelist(64)
cdef class ViewSource:
    """Keeps the memory that views look at, and its export, alive."""

    def __cinit__(self):
        self._has_buffer = False

    def __dealloc__(self):
        if self._has_buffer:
            PyBuffer_Release(&self._buffer)


cdef ViewSource _source_of(owner):
    cdef ViewSource source = ViewSource.__new__(ViewSource)
    if isinstance(owner, str):
        # An ASCII str is its own UTF-8. Python encodes any other once and keeps it with the str.
        try:
            source.data = <const uint8_t*> PyUnicode_AsUTF8AndSize(owner, &source.n_bytes)
        except UnicodeEncodeError as error:
            what = f"the text holds a lone surrogate at character {error.start}"
            raise failure(BAD_UTF8, what, {"position": error.start}) from None
    else:
        PyObject_GetBuffer(owner, &source._buffer, PyBUF_SIMPLE)
        source._has_buffer = True
        source.data = <const uint8_t*> source._buffer.buf
        source.n_bytes = source._buffer.len
        if source.data == NULL:     # allowed for an empty buffer
            source.data = <const uint8_t*> b""
    source.owner = owner
    return source


cdef ByteView part_of(ByteView parent, const uint8_t* data, Py_ssize_t n_bytes):
    cdef ByteView part
    if isinstance(parent, TextSlice):
        part = TextSlice.__new__(TextSlice)
    else:
        part = ByteView.__new__(ByteView)
    part._source = parent._source
    part.data = data
    part.n_bytes = n_bytes
    return part


cdef inline bint _is_boundary(ByteView text, Py_ssize_t position) noexcept:
    return position >= text.n_bytes or (text.data[position] & 0xC0) != 0x80


cdef inline bint _is_space(uint8_t byte) noexcept nogil:
    return byte == 32 or 9 <= byte <= 13


cdef Py_ssize_t _search(
    const uint8_t* data, Py_ssize_t n, const uint8_t* needle, Py_ssize_t m
) noexcept:
    """Offset of the first occurrence, or -1."""
    cdef const void* found
    if m > n:
        return -1
    if m == 0:
        return 0
    if n < GIL_FREE_BYTES:
        found = rl_find(data, n, needle, m)
    else:
        with nogil:
            found = rl_find(data, n, needle, m)
    return -1 if found == NULL else <const uint8_t*> found - data


cdef ByteView _operand(ByteView view, other):
    """`other` as a view that `view` can be compared with or searched for; None for another kind."""
    cdef bint is_text = isinstance(view, TextSlice)
    if isinstance(other, ByteView):
        return <ByteView> other if isinstance(other, TextSlice) == is_text else None
    if isinstance(other, str):
        return TextSlice(other) if is_text else None
    if is_text:
        return None
    try:
        return ByteView(other)
    except TypeError:
        return None


cdef ByteView _needle(ByteView view, other, bint may_be_empty):
    cdef ByteView needle = _operand(view, other)
    if needle is None:
        kind = "text" if isinstance(view, TextSlice) else "bytes"
        raise failure(BAD_ARGUMENT, f"{kind} expected, not {type(other).__name__}", None)
    if needle.n_bytes == 0 and not may_be_empty:
        raise failure(BAD_ARGUMENT, "an empty separator", None)
    return needle


@cython.freelist(256)
cdef class ByteView:
    """A slice of bytes that belong to another object, without a copy.

    Parameters
    ----------
    source : buffer
        :class:`bytes`, :class:`bytearray`, :class:`memoryview`, :class:`mmap.mmap`, an array,
        another view, or any other object with a C-contiguous buffer.
    start, stop : int, optional
        Which bytes of it, with the meaning that they have in a Python slice.

    Raises
    ------
    TypeError
        The source has no buffer.
    BufferError
        Its buffer is not contiguous.

    Notes
    -----
    Equal to, and of the same hash as, a :class:`bytes` object of the same content, so that either
    finds the other in a dictionary. Immutable; the source must not be written to meanwhile.

    A view keeps its source, all of it, alive and exported: an :class:`mmap.mmap` cannot be closed
    before. :meth:`to_owned` copies the part that is to stay.

    Thread safety: immutable, so any number of threads.

    Examples
    --------
    >>> from rustllm.memory import ByteView
    >>> line = ByteView(b"id=7; name=x", 0, 4)
    >>> key, _, value = line.partition(b"=")
    >>> key == b"id", bytes(value)
    (True, b'7')
    """

    def __cinit__(self):
        self._hash = -1
        self.data = <const uint8_t*> b""
        self._strides[0] = 1

    def __init__(self, source=b"", start=None, stop=None):
        self._look_at(source, start, stop)

    def _look_at(self, source, start, stop):
        cdef ByteView parent
        cdef Py_ssize_t first, last, n
        if isinstance(source, ByteView):
            parent = source
            self._source = parent._source
            self.data = parent.data
            n = parent.n_bytes
        else:
            self._source = _source_of(source)
            self.data = self._source.data
            n = self._source.n_bytes
        first, last = 0, n
        if start is not None or stop is not None:
            first, last, _ = slice(start, stop).indices(n)
        if last < first:
            last = first
        self.data += first
        self.n_bytes = last - first

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        cdef bint has_strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES
        if flags & PyBUF_WRITABLE:
            raise BufferError("views are read-only")
        self._shape[0] = self.n_bytes
        buffer.buf = <void*> self.data
        buffer.obj = self
        buffer.len = self.n_bytes
        buffer.itemsize = 1
        buffer.readonly = 1
        buffer.ndim = 1
        buffer.format = <char*> b"B" if flags & PyBUF_FORMAT else <char*> NULL
        buffer.shape = &self._shape[0] if flags & PyBUF_ND else <Py_ssize_t*> NULL
        buffer.strides = &self._strides[0] if has_strides else <Py_ssize_t*> NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL

    @property
    def source(self):
        """The object whose memory this is."""
        return None if self._source is None else self._source.owner

    @property
    def offset(self):
        """Where in the source this begins, in bytes."""
        return 0 if self._source is None else self.data - self._source.data

    @property
    def nbytes(self):
        """Size in bytes."""
        return self.n_bytes

    @property
    def is_ascii(self):
        """Whether every byte is below 128."""
        return bool(is_ascii_bytes(self.data, self.n_bytes))

    def __len__(self):
        return self.n_bytes

    def __bytes__(self):
        return PyBytes_FromStringAndSize(<const char*> self.data, self.n_bytes)

    def __repr__(self):
        shown = bytes(self[:60])
        return f"ByteView({shown!r}{'...' if self.n_bytes > 60 else ''})"

    def __reduce__(self):
        return ByteView, (bytes(self),)

    def __hash__(self):
        # Not overridden by TextSlice: a class with its own hash does not inherit the comparison.
        if self._hash == -1:
            if isinstance(self, TextSlice) and not is_ascii_bytes(self.data, self.n_bytes):
                self._hash = hash(str(self))
            else:
                self._hash = rl_hash_bytes(self.data, self.n_bytes)
        return self._hash

    def __richcmp__(self, other, int op):
        cdef ByteView right
        cdef Py_ssize_t n
        cdef int order
        if isinstance(self, TextSlice) and isinstance(other, str):
            if not PyUnicode_IS_COMPACT_ASCII(other) and op in (Py_EQ, Py_NE):
                if is_ascii_bytes(self.data, self.n_bytes):
                    return op == Py_NE
            try:
                right = TextSlice(other)
            except ValueError:          # a lone surrogate: no UTF-8, so equal to none
                return op == Py_NE if op in (Py_EQ, Py_NE) else NotImplemented
        else:
            right = _operand(self, other)
        if right is None:
            return NotImplemented
        if op in (Py_EQ, Py_NE) and self.n_bytes != right.n_bytes:
            return op == Py_NE
        n = self.n_bytes if self.n_bytes < right.n_bytes else right.n_bytes
        order = memcmp(self.data, right.data, n)
        if order == 0:
            order = (self.n_bytes > right.n_bytes) - (self.n_bytes < right.n_bytes)
        if op == Py_EQ:
            return order == 0
        if op == Py_NE:
            return order != 0
        if op == Py_LT:
            return order < 0
        if op == Py_LE:
            return order <= 0
        if op == Py_GT:
            return order > 0
        assert op == Py_GE
        return order >= 0

    def __getitem__(self, index):
        cdef Py_ssize_t start, stop, step, at
        if isinstance(index, slice):
            start, stop, step = index.indices(self.n_bytes)
            if step != 1:
                raise failure(BAD_ARGUMENT, "a view is cut in steps of 1 only", None)
            return part_of(self, self.data + start, stop - start if stop > start else 0)
        at = index
        if at < 0:
            at += self.n_bytes
        if not 0 <= at < self.n_bytes:
            raise IndexError("index out of range")
        return self.data[at]

    def __contains__(self, needle):
        return self.find(needle) >= 0

    def find(self, needle, start=None, stop=None):
        """Offset of the first occurrence of `needle`.

        Parameters
        ----------
        needle : bytes-like (of text: str or TextSlice)
            What to look for.
        start, stop : int, optional
            Where to look, in bytes, as in a slice.

        Returns
        -------
        int
            In bytes from the beginning of this view; -1 when it does not occur.

        Notes
        -----
        Linear time; without the GIL on large views.
        """
        cdef ByteView what = _needle(self, needle, True)
        cdef Py_ssize_t first = 0
        cdef Py_ssize_t last = self.n_bytes
        cdef Py_ssize_t found
        if start is not None or stop is not None:
            if start is not None and start > self.n_bytes:
                return -1
            first, last, _ = slice(start, stop).indices(self.n_bytes)
        if last < first:
            return -1
        found = _search(self.data + first, last - first, what.data, what.n_bytes)
        return found + first if found >= 0 else -1

    def count(self, needle):
        """How often `needle`, which must not be empty, occurs without overlap."""
        cdef ByteView what = _needle(self, needle, False)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t n_found = 0
        cdef Py_ssize_t found
        while True:
            found = _search(self.data + at, self.n_bytes - at, what.data, what.n_bytes)
            if found < 0:
                return n_found
            n_found += 1
            at += found + what.n_bytes

    def startswith(self, prefix):
        """Whether this begins with `prefix`."""
        cdef ByteView what = _needle(self, prefix, True)
        return what.n_bytes <= self.n_bytes and memcmp(self.data, what.data, what.n_bytes) == 0

    def endswith(self, suffix):
        """Whether this ends with `suffix`."""
        cdef ByteView what = _needle(self, suffix, True)
        cdef Py_ssize_t at = self.n_bytes - what.n_bytes
        return at >= 0 and memcmp(self.data + at, what.data, what.n_bytes) == 0

    def partition(self, separator):
        """What stands before the first `separator`, it, and what stands after, as three views."""
        cdef ByteView what = _needle(self, separator, False)
        cdef Py_ssize_t at = _search(self.data, self.n_bytes, what.data, what.n_bytes)
        cdef const uint8_t* end = self.data + self.n_bytes
        if at < 0:
            return self, part_of(self, end, 0), part_of(self, end, 0)
        return (
            part_of(self, self.data, at),
            part_of(self, self.data + at, what.n_bytes),
            part_of(self, self.data + at + what.n_bytes, self.n_bytes - at - what.n_bytes),
        )

    def strip(self, chars=None):
        """Without the given ASCII characters (by default ASCII white space) at both ends."""
        return self._strip(chars, True, True)

    def lstrip(self, chars=None):
        """As :meth:`strip`, at the beginning only."""
        return self._strip(chars, True, False)

    def rstrip(self, chars=None):
        """As :meth:`strip`, at the end only."""
        return self._strip(chars, False, True)

    def _strip(self, chars, bint left, bint right):
        cdef bint dropped[256]
        cdef ByteView what
        cdef Py_ssize_t i
        cdef Py_ssize_t first = 0
        cdef Py_ssize_t last = self.n_bytes
        for i in range(256):
            dropped[i] = chars is None and _is_space(<uint8_t> i)
        if chars is not None:
            what = _needle(self, chars, True)
            if isinstance(self, TextSlice) and not is_ascii_bytes(what.data, what.n_bytes):
                raise failure(BAD_ARGUMENT, "only ASCII characters can be stripped", None)
            for i in range(what.n_bytes):
                dropped[what.data[i]] = True
        while left and first < last and dropped[self.data[first]]:
            first += 1
        while right and last > first and dropped[self.data[last - 1]]:
            last -= 1
        return part_of(self, self.data + first, last - first)

    def lines(self, *, bint keepends=False):
        """The lines, one after another.

        Parameters
        ----------
        keepends : bool, optional
            Leave the line ends on.

        Returns
        -------
        iterator of views
            Lines end with ``\\n``, ``\\r\\n`` or ``\\r``, as for :meth:`bytes.splitlines`.

        Notes
        -----
        Linear time for all lines together; nothing is copied.

        Examples
        --------
        >>> from rustllm import TextSlice
        >>> [str(line) for line in TextSlice("one\\ntwo\\r\\n\\nfour").lines()]
        ['one', 'two', '', 'four']
        """
        cdef LineIterator lines = LineIterator.__new__(LineIterator)
        lines._view = self
        lines._keepends = keepends
        lines._next_cr = -1
        return lines

    def splitlines(self, bint keepends=False):
        """:meth:`lines` as a list."""
        return list(self.lines(keepends=keepends))

    def fields(self, separator=None, *, Py_ssize_t maxsplit=-1):
        """The fields, one after another.

        Parameters
        ----------
        separator : bytes-like (of text: str or TextSlice), optional
            What stands between fields. By default runs of ASCII white space, also dropped at both
            ends, as for :meth:`bytes.split`.
        maxsplit : int, optional
            At most so many cuts; the last field is the rest.

        Returns
        -------
        iterator of views
            Nothing is copied.

        Examples
        --------
        >>> from rustllm import TextSlice
        >>> [str(field) for field in TextSlice("a\\tb\\t\\tc").fields("\\t")]
        ['a', 'b', '', 'c']
        """
        return _fields_of(self, separator, maxsplit)

    def split(self, separator=None, Py_ssize_t maxsplit=-1):
        """:meth:`fields` as a list."""
        cdef FieldIterator fields = _fields_of(self, separator, maxsplit)
        cdef list found = []
        while fields._at >= 0:
            part = fields._next_word() if separator is None else fields._next_field()
            if part is not None:
                found.append(part)
        return found

    def decode(self, str encoding="utf-8", str errors="strict"):
        """The bytes as a str; see :meth:`bytes.decode`."""
        if encoding in ("utf-8", "utf8") and errors == "strict":
            return PyUnicode_DecodeUTF8(<const char*> self.data, self.n_bytes, NULL)
        return str(self, encoding, errors)

    def to_owned(self):
        """A copy of this part alone, which lets go of the source."""
        return type(self)(bytes(self))


cdef FieldIterator _fields_of(ByteView view, separator, Py_ssize_t maxsplit):
    cdef FieldIterator fields = FieldIterator.__new__(FieldIterator)
    fields._view = view
    fields._separator = None if separator is None else _needle(view, separator, False)
    fields._left = maxsplit
    return fields


@cython.final
cdef class LineIterator:
    """See :meth:`ByteView.lines`."""

    cdef ByteView _view
    cdef Py_ssize_t _at
    cdef Py_ssize_t _next_cr        # first \r not before _at; n_bytes when none; -1 unknown
    cdef bint _keepends

    def __iter__(self):
        return self

    @cython.critical_section
    def __next__(self):
        cdef ByteView view = self._view
        cdef Py_ssize_t n = view.n_bytes
        cdef Py_ssize_t start = self._at
        cdef Py_ssize_t end, after
        cdef const uint8_t* found
        if start >= n:
            raise StopIteration
        # Each search for \r goes on where the last one ended, so all of them together are linear.
        if self._next_cr < start:
            found = <const uint8_t*> memchr(view.data + start, 13, n - start)
            self._next_cr = n if found == NULL else found - view.data
        found = <const uint8_t*> memchr(view.data + start, 10, self._next_cr - start)
        if found != NULL:
            end = found - view.data
            after = end + 1
        else:
            end = self._next_cr
            after = end + 1 if end < n else n
            if after < n and view.data[after] == 10:
                after += 1
        self._at = after
        return part_of(view, view.data + start, (after if self._keepends else end) - start)


@cython.final
cdef class FieldIterator:
    """See :meth:`ByteView.fields`."""

    cdef ByteView _view
    cdef ByteView _separator        # None: runs of white space
    cdef Py_ssize_t _at             # -1 after the last field
    cdef Py_ssize_t _left           # cuts still allowed; negative: any number

    def __iter__(self):
        return self

    @cython.critical_section
    def __next__(self):
        cdef ByteView part = None
        if self._at >= 0:
            part = self._next_word() if self._separator is None else self._next_field()
        if part is None:
            raise StopIteration
        return part

    cdef ByteView _next_field(self):
        cdef ByteView view = self._view
        cdef Py_ssize_t start = self._at
        cdef Py_ssize_t found = -1
        if self._left != 0:
            found = _search(
                view.data + start,
                view.n_bytes - start,
                self._separator.data,
                self._separator.n_bytes,
            )
            self._left -= self._left > 0
        if found < 0:
            self._at = -1
            return part_of(view, view.data + start, view.n_bytes - start)
        self._at = start + found + self._separator.n_bytes
        return part_of(view, view.data + start, found)

    cdef ByteView _next_word(self):
        cdef ByteView view = self._view
        cdef Py_ssize_t n = view.n_bytes
        cdef Py_ssize_t start = self._at
        cdef Py_ssize_t end
        while start < n and _is_space(view.data[start]):
            start += 1
        if start == n:
            self._at = -1
            return None
        end = start
        if self._left == 0:
            self._at = -1
            return part_of(view, view.data + start, n - start)
        self._left -= self._left > 0
        while end < n and not _is_space(view.data[end]):
            end += 1
        self._at = end
        return part_of(view, view.data + start, end - start)


@cython.final
cdef class TextSlice(ByteView):
    """A slice of text that belongs to another object, as UTF-8, without a copy.

    Parameters
    ----------
    source : str or buffer
        A :class:`str`, or UTF-8 in :class:`bytes`, a :class:`mmap.mmap` or another buffer, which is
        checked once. Slices of slices share the source and are not checked again.
    start, stop : int, optional
        Which part, as offsets in bytes; they must not cut a character.

    Raises
    ------
    InvalidUtf8Error
        The bytes are not UTF-8 (``offset`` says where), or the str has a lone surrogate.
    ArgumentError
        A character would be cut.
    TypeError
        The source is neither a str nor a buffer.

    Notes
    -----
    All offsets and lengths are in bytes, so that each operation takes the time of the bytes it
    looks at. Equal to, ordered as, and of the same hash as a :class:`str` of the same content, so
    that either finds the other in a dictionary. An ASCII str is looked at as it is; any other is
    encoded once, by Python, which keeps the result with the str. Hashing text that is not ASCII
    builds a temporary str.

    White space, for :meth:`strip` and :meth:`fields`, is that of ASCII, and lines end as for
    :meth:`bytes.splitlines`.

    Thread safety: immutable, so any number of threads. The source must not be written to meanwhile.

    Examples
    --------
    >>> from rustllm import TextSlice
    >>> text = TextSlice("  naïve café\\n")
    >>> word, _, rest = text.strip().partition(" ")
    >>> word == "naïve", str(rest), len(rest), rest.n_chars
    (True, 'café', 5, 4)
    >>> {"café": 1}[rest]
    1
    """

    def __init__(self, source="", start=None, stop=None):
        cdef size_t good
        cdef Py_ssize_t n
        self._look_at(source, start, stop)
        if isinstance(source, (str, TextSlice)):
            if (start is None and stop is None) or self.n_bytes == 0:
                return
            n = self.data - self._source.data
            if (self.data[0] & 0xC0) == 0x80 or (
                n + self.n_bytes < self._source.n_bytes
                and (self.data[self.n_bytes] & 0xC0) == 0x80
            ):
                raise failure(BAD_ARGUMENT, "the slice would cut a character", None)
            return
        n = self.n_bytes
        if n < GIL_FREE_BYTES:
            good = utf8_valid_up_to(self.data, n)
        else:
            with nogil:
                good = utf8_valid_up_to(self.data, n)
        if good < <size_t> n:
            raise failure(BAD_UTF8, "not UTF-8", {"offset": good})

    def __str__(self):
        return PyUnicode_DecodeUTF8(<const char*> self.data, self.n_bytes, NULL)

    def __repr__(self):
        cdef Py_ssize_t shown = self.n_bytes
        if shown > 60:
            shown = 60
            while not _is_boundary(self, shown):
                shown -= 1
        text = PyUnicode_DecodeUTF8(<const char*> self.data, shown, NULL)
        return f"TextSlice({text!r}{'...' if self.n_bytes > shown else ''})"

    def __reduce__(self):
        return TextSlice, (str(self),)

    def __getitem__(self, index):
        cdef Py_ssize_t start, stop, step
        if not isinstance(index, slice):
            raise failure(BAD_ARGUMENT, "text is cut by slices, not by single offsets", None)
        start, stop, step = index.indices(self.n_bytes)
        if step != 1:
            raise failure(BAD_ARGUMENT, "a view is cut in steps of 1 only", None)
        if stop <= start:
            return part_of(self, self.data + start, 0)
        if not _is_boundary(self, start) or not _is_boundary(self, stop):
            what = f"bytes {start} to {stop} would cut a character"
            hint = "move to a byte that is_boundary() accepts"
            raise failure(BAD_ARGUMENT, what, {"hint": hint})
        return part_of(self, self.data + start, stop - start)

    def __iter__(self):
        raise TypeError("a TextSlice is not iterable; use lines(), fields() or str()")

    @property
    def n_chars(self):
        """Number of characters (code points)."""
        return utf8_count(self.data, self.n_bytes)

    def is_boundary(self, Py_ssize_t position):
        """Whether the text can be cut before the byte at `position`, from 0 to its length."""
        return 0 <= position <= self.n_bytes and _is_boundary(self, position)
