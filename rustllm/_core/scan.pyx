"""Walk the header of a GGUF file that may be hostile.

One pass over a bounded buffer: every count and length is compared with the bytes that remain before
anything is allocated or read, sums and products are checked, nothing recurses. What breaks a rule
is told by :class:`ScanError`, which :mod:`rustllm.loaders` turns into an error of the library that
names the file. What keys mean is not known here, but for ``general.alignment``, without which the
data cannot be found.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from rustllm._core.quant cimport block_elements, row_bytes

import numpy as np

from rustllm._core.quant import BLOCK_FORMATS

cdef extern from "utf8.h" nogil:
    size_t rl_utf8_valid_prefix(const uint8_t* p, size_t n) noexcept

cdef enum:
    UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64

# By id in the file.
VALUE_TYPES = (
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "array", "u64", "i64", "f64",
)
_DTYPES = (
    "<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?", None, None, "<u8", "<i8", "<f8",
)

# Why a type id that once had a meaning is refused.
_OTHER_TYPES = {
    4: "Q4_2, removed from the format", 5: "Q4_3, removed from the format", 9: "Q8_1",
    15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 31: "Q4_0_4_4, removed from the format",
    32: "Q4_0_4_8, removed from the format", 33: "Q4_0_8_8, removed from the format",
    34: "TQ1_0", 35: "TQ2_0", 36: "IQ4_NL_4_4, removed from the format",
    37: "IQ4_NL_4_8, removed from the format", 38: "IQ4_NL_8_8, removed from the format",
    39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}

_FETCH_AGAIN = "the file is incomplete or damaged: fetch it again"

cdef uint64_t _MIN_KEY_BYTES = 8 + 1 + 4 + 1      # length, one character, type, smallest value
cdef uint64_t _MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
cdef uint64_t _MAX_KEYS = 1 << 16
cdef uint64_t _MAX_TENSORS = 1 << 20
cdef uint64_t _MAX_KEY_BYTES = 65535
cdef uint64_t _MAX_NAME_BYTES = 63
cdef uint64_t _MAX_STRING_BYTES = 1 << 28
cdef uint64_t _MAX_STRINGS = 1 << 26
cdef uint64_t _MAX_DIM = <uint64_t>1 << 40
cdef uint64_t _MAX_ALIGNMENT = 1 << 20
cdef uint64_t _INT64_MAX = 0x7fffffffffffffff


class ScanError(ValueError):
    """A broken rule. ``kind`` is ``"format"``, ``"truncated"`` or ``"unsupported"``."""

    def __init__(self, kind, message, offset, hint=None):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.offset = offset
        self.hint = hint
        self.key = None
        self.tensor = None


cdef struct Cursor:
    const uint8_t* data
    uint64_t size
    uint64_t at


cdef int _need(Cursor* c, uint64_t n, str what) except -1:
    if n > c.size - c.at:
        raise ScanError(
            "truncated", f"{what} takes {n} bytes, but the file ends after {c.size - c.at}", c.at,
            _FETCH_AGAIN,
        )
    return 0


cdef uint32_t _take_u32(Cursor* c, str what) except? 0:
    cdef uint32_t value
    _need(c, 4, what)
    memcpy(&value, c.data + c.at, 4)
    c.at += 4
    return value


cdef uint64_t _take_u64(Cursor* c, str what) except? 0:
    cdef uint64_t value
    _need(c, 8, what)
    memcpy(&value, c.data + c.at, 8)
    c.at += 8
    return value


cdef str _take_text(Cursor* c, uint64_t n, str what):
    """`n` bytes as text, strictly UTF-8. The caller has bounded `n`."""
    _need(c, n, what)
    cdef uint64_t valid = rl_utf8_valid_prefix(c.data + c.at, n)
    if valid != n:
        raise ScanError("format", f"{what} is not valid UTF-8", c.at + valid)
    text = PyUnicode_DecodeUTF8(<const char*>c.data + c.at, <Py_ssize_t>n, NULL)
    c.at += n
    return text


cdef str _take_key(Cursor* c, bint strict):
    cdef uint64_t start = c.at
    cdef uint64_t n = _take_u64(c, "length of a key")
    if n == 0 or n > _MAX_KEY_BYTES:
        raise ScanError("format", f"a key of {n} bytes; 1 to {_MAX_KEY_BYTES} are allowed", start)
    _need(c, n, "a key")
    cdef uint64_t i
    cdef uint8_t b
    for i in range(n):
        b = c.data[c.at + i]
        if b < 0x21 or b > 0x7e:
            raise ScanError("format", f"byte 0x{b:02x} in a key, not printable ASCII", c.at + i)
        if strict and not (
            c"a" <= b <= c"z" or c"A" <= b <= c"Z" or c"0" <= b <= c"9" or b in (46, 95, 45)
        ):
            raise ScanError("format", f"character {chr(b)!r} in a key", c.at + i)
    return _take_text(c, n, "a key")


cdef str _take_name(Cursor* c):
    cdef uint64_t start = c.at
    cdef uint64_t n = _take_u64(c, "length of a tensor name")
    if n == 0 or n > _MAX_NAME_BYTES:
        raise ScanError(
            "format", f"a tensor name of {n} bytes; 1 to {_MAX_NAME_BYTES} are allowed", start
        )
    name = _take_text(c, n, "a tensor name")
    if "\0" in name:
        raise ScanError("format", "a NUL in a tensor name", start + 8)
    return name


cdef object _take_string(Cursor* c):
    cdef uint64_t start = c.at
    cdef uint64_t n = _take_u64(c, "length of a string")
    if n > _MAX_STRING_BYTES and n <= c.size - c.at:
        raise ScanError(
            "format", f"a string of {n} bytes; at most {_MAX_STRING_BYTES} are allowed", start
        )
    return _take_text(c, n, "a string")


cdef Py_ssize_t _walk_strings(
    Cursor* c, uint64_t n, int64_t* offsets, int64_t* lengths
) noexcept nogil:
    """Note where `n` strings stand; how many fit before the end of the data."""
    cdef uint64_t i
    cdef uint64_t length
    for i in range(n):
        if c.size - c.at < 8:
            return i
        memcpy(&length, c.data + c.at, 8)
        if length > c.size - c.at - 8:
            return i
        offsets[i] = c.at + 8
        lengths[i] = length
        c.at += 8 + length
    return n


cdef object _take_strings(Cursor* c, uint64_t n):
    if n > _MAX_STRINGS:
        raise ScanError("format", f"an array of {n} strings; at most {_MAX_STRINGS}", c.at - 8)
    offsets = np.empty(n, dtype=np.int64)
    lengths = np.empty(n, dtype=np.int64)
    cdef int64_t[::1] offsets_view = offsets
    cdef int64_t[::1] lengths_view = lengths
    cdef Py_ssize_t walked
    if n:
        with nogil:
            walked = _walk_strings(c, n, &offsets_view[0], &lengths_view[0])
        if walked != n:
            raise ScanError(
                "truncated", f"string {walked} of {n} reaches past the end of the file", c.at,
                _FETCH_AGAIN,
            )
    offsets.flags.writeable = False
    lengths.flags.writeable = False
    return offsets, lengths


cdef Py_ssize_t _first_not_bool(const uint8_t* p, uint64_t n) noexcept nogil:
    cdef uint64_t i
    for i in range(n):
        if p[i] > 1:
            return i
    return -1


cdef object _take_array(Cursor* c, buffer, uint32_t* item_type, uint64_t* count):
    cdef uint64_t start = c.at
    cdef uint32_t kind = _take_u32(c, "item type of an array")
    if kind > FLOAT64:
        raise ScanError("format", f"{kind} is not the id of an item type", start)
    if kind == ARRAY:
        raise ScanError("unsupported", "an array of arrays", start)
    cdef uint64_t n = _take_u64(c, "length of an array")
    cdef uint64_t item_bytes = 8 if kind == STRING else np.dtype(_DTYPES[kind]).itemsize
    cdef uint64_t room = c.size - c.at
    item_type[0] = kind
    count[0] = n
    if n > room // item_bytes:
        raise ScanError(
            "truncated", f"an array of {n} items of at least {item_bytes} bytes, but the file "
            f"ends after {room} bytes", c.at - 8, _FETCH_AGAIN,
        )
    if kind == STRING:
        return _take_strings(c, n)
    cdef Py_ssize_t bad = -1
    if kind == BOOL:
        with nogil:
            bad = _first_not_bool(c.data + c.at, n)
    if bad >= 0:
        raise ScanError("format", "a truth value that is not 0 or 1", c.at + <uint64_t>bad)
    values = buffer[c.at:c.at + n * item_bytes].view(_DTYPES[kind])
    c.at += n * item_bytes
    return values


cdef object _take_scalar(Cursor* c, uint32_t kind):
    cdef const uint8_t* p
    cdef int16_t i16
    cdef uint16_t u16
    cdef int32_t i32
    cdef uint32_t u32
    cdef int64_t i64
    cdef uint64_t u64
    cdef float f32
    cdef double f64
    cdef int width = (1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8)[kind]
    _need(c, width, "a value")
    p = c.data + c.at
    if kind == UINT8:
        value = p[0]
    elif kind == INT8:
        value = <int8_t>p[0]
    elif kind == BOOL:
        if p[0] > 1:
            raise ScanError("format", f"truth value {p[0]}; only 0 and 1 are allowed", c.at)
        value = p[0] == 1
    elif kind == UINT16:
        memcpy(&u16, p, 2)
        value = u16
    elif kind == INT16:
        memcpy(&i16, p, 2)
        value = i16
    elif kind == UINT32:
        memcpy(&u32, p, 4)
        value = u32
    elif kind == INT32:
        memcpy(&i32, p, 4)
        value = i32
    elif kind == FLOAT32:
        memcpy(&f32, p, 4)
        value = f32
    elif kind == UINT64:
        memcpy(&u64, p, 8)
        value = u64
    elif kind == INT64:
        memcpy(&i64, p, 8)
        value = i64
    else:
        memcpy(&f64, p, 8)
        value = f64
    c.at += width
    return value


cdef tuple _take_value(Cursor* c, buffer):
    """The value after a key: ``(type, item_type, count, value)``."""
    cdef uint64_t start = c.at
    cdef uint32_t item_type = 0
    cdef uint64_t count = 1
    cdef uint32_t kind = _take_u32(c, "type of a value")
    if kind > FLOAT64:
        raise ScanError("format", f"{kind} is not the id of a value type", start)
    if kind == ARRAY:
        value = _take_array(c, buffer, &item_type, &count)
    elif kind == STRING:
        value = _take_string(c)
    else:
        value = _take_scalar(c, kind)
    return kind, item_type, count, value


cdef dict _take_keys(Cursor* c, buffer, uint64_t n, bint strict):
    fields = {}
    cdef uint64_t i
    cdef uint64_t start
    for i in range(n):
        key = None
        start = c.at
        if i & 1023 == 1023:
            PyErr_CheckSignals()
        try:
            key = _take_key(c, strict)
            if key in fields:
                raise ScanError("format", "the key occurs twice", start)
            fields[key] = _take_value(c, buffer)
        except ScanError as error:
            error.key = key if key is not None else f"number {i}"
            raise
    return fields


cdef tuple _take_tensor(Cursor* c):
    """``(shape, type id, offset in the data, bytes, where it is told)``; shape rows first."""
    cdef uint64_t start = c.at
    cdef uint32_t n_dims = _take_u32(c, "number of dimensions")
    if n_dims < 1 or n_dims > 4:
        raise ScanError("format", f"{n_dims} dimensions; 1 to 4 are allowed", start)
    cdef uint64_t ne[4]
    cdef uint64_t n_elements = 1
    cdef uint32_t i
    for i in range(n_dims):
        start = c.at
        ne[i] = _take_u64(c, "a dimension")
        if ne[i] < 1 or ne[i] > _MAX_DIM:
            raise ScanError("format", f"dimension {i} is {ne[i]}; 1 to 2^40 are allowed", start)
        if ne[i] > _INT64_MAX // n_elements:
            raise ScanError("format", "more than 2^63 elements", start)
        n_elements *= ne[i]
    start = c.at
    cdef uint32_t type_id = _take_u32(c, "type of a tensor")
    cdef Py_ssize_t elements = block_elements(<int>type_id) if type_id < 1 << 16 else 0
    if elements == 0:
        what = _OTHER_TYPES.get(type_id, "unknown")
        known = ", ".join(f.name for f in BLOCK_FORMATS.values())
        raise ScanError(
            "unsupported", f"block type {type_id} ({what}) is not supported", start,
            f"quantize the model to one of {known}",
        )
    if ne[0] % <uint64_t>elements:
        raise ScanError(
            "format", f"rows of {ne[0]} elements are not whole blocks of {elements}", start
        )
    cdef Py_ssize_t n_bytes = row_bytes(<int>type_id, <Py_ssize_t>n_elements)
    if n_bytes < 0:
        raise ScanError("format", "more than 2^63 bytes", start)
    cdef uint64_t offset = _take_u64(c, "offset of a tensor")
    return tuple([ne[n_dims - 1 - i] for i in range(n_dims)]), type_id, offset, n_bytes, start - 4


cdef dict _take_tensors(Cursor* c, uint64_t n):
    tensors = {}
    cdef uint64_t i
    cdef uint64_t start
    for i in range(n):
        name = None
        start = c.at
        if i & 1023 == 1023:
            PyErr_CheckSignals()
        try:
            name = _take_name(c)
            if name in tensors:
                raise ScanError("format", "the name occurs twice", start)
            tensors[name] = _take_tensor(c)
        except ScanError as error:
            error.tensor = name if name is not None else f"number {i}"
            raise
    return tensors


cdef uint64_t _alignment(dict fields, bint strict) except 0:
    field = fields.get("general.alignment")
    if field is None:
        return 32
    if field[0] != UINT32:
        wrong = f"is a value of type {VALUE_TYPES[field[0]]}, not u32"
    elif field[3] == 0 or field[3] & (field[3] - 1):
        wrong = f"is {field[3]}, not a power of two"
    elif field[3] > _MAX_ALIGNMENT or strict and field[3] < 8:
        wrong = f"is {field[3]}; 8 to {_MAX_ALIGNMENT} are allowed"
    else:
        return field[3]
    error = ScanError("format", f"the alignment {wrong}", None)
    error.key = "general.alignment"
    raise error


cdef int _check_places(dict tensors, uint64_t room, uint64_t data_start, uint64_t step) except -1:
    """Every tensor is aligned and within `room` bytes from `data_start`."""
    cdef uint64_t offset
    cdef uint64_t n_bytes
    for name, (_, _, offset, n_bytes, where) in tensors.items():
        if offset % step:
            error = ScanError(
                "format", f"its data begins at {offset}, not a multiple of the alignment {step}",
                where,
            )
        elif offset > room or n_bytes > room - offset:
            error = ScanError(
                "truncated", f"its {n_bytes} bytes at {data_start} + {offset} reach past the end "
                f"of the file", where, _FETCH_AGAIN,
            )
        else:
            continue
        error.tensor = name
        raise error
    return 0


def scan_gguf(buffer, bint strict=False):
    """Walk the header of a GGUF file, version 2 or 3, little-endian.

    Parameters
    ----------
    buffer : ndarray of uint8
        The whole file, contiguous. Arrays of numbers in the result are views of it.
    strict : bool
        Also refuse what the format forbids but readers commonly accept.

    Returns
    -------
    version : int
    alignment : int
    data_start : int
        Where tensor data begins; may lie past the end in a file without tensors.
    fields : dict of str to (type, item_type, count, value)
        Values: Python scalars and text; arrays of numbers as views; arrays of strings as a pair of
        int64 arrays ``(offsets, lengths)``, whose text is not checked.
    tensors : dict of str to (shape, type_id, offset, n_bytes, told_at)
        In file order; `shape` has rows first, `offset` counts from `data_start`.

    Raises
    ------
    ScanError
        A rule is broken.

    Notes
    -----
    O(size of the header) time and memory; arrays of strings are walked without the GIL.
    """
    cdef const uint8_t[::1] view = buffer
    cdef Cursor c
    cdef uint64_t n = view.shape[0]
    if n == 0:
        raise ScanError("truncated", "the file is empty", 0)
    c.data = &view[0]
    c.size = n
    c.at = 0
    if bytes(view[:min(n, 4)]) != b"GGUF"[:min(n, 4)]:
        raise ScanError("format", "not a GGUF file: it does not begin with 'GGUF'", 0,
                        "rustllm inspect tells what a file is")
    _need(&c, 24, "the header")
    c.at = 4
    cdef uint32_t version = _take_u32(&c, "version")
    if version in (0x01000000, 0x02000000, 0x03000000):
        raise ScanError("unsupported", "a big-endian file", 4,
                        "convert it with gguf-convert-endian from the gguf package")
    if version not in (2, 3):
        raise ScanError("unsupported", f"version {version}; versions 2 and 3 are supported", 4,
                        "convert the model again with a current converter")
    cdef uint64_t n_tensors = _take_u64(&c, "number of tensors")
    cdef uint64_t n_keys = _take_u64(&c, "number of keys")
    cdef uint64_t room = c.size - c.at
    if n_tensors > _MAX_TENSORS:
        raise ScanError("format", f"{n_tensors} tensors; at most {_MAX_TENSORS} are allowed", 8)
    if n_keys > _MAX_KEYS:
        raise ScanError("format", f"{n_keys} keys; at most {_MAX_KEYS} are allowed", 16)
    if n_keys * _MIN_KEY_BYTES + n_tensors * _MIN_TENSOR_BYTES > room:
        raise ScanError(
            "truncated", f"{n_keys} keys and {n_tensors} tensors cannot be told in the {room} "
            "bytes that follow", 8, _FETCH_AGAIN,
        )
    fields = _take_keys(&c, buffer, n_keys, strict)
    cdef uint64_t alignment = _alignment(fields, strict)
    tensors = _take_tensors(&c, n_tensors)
    # No overflow: a buffer is far below 2^63 bytes, an alignment at most 2^20.
    cdef uint64_t data_start = (c.at + alignment - 1) // alignment * alignment
    room = c.size - data_start if data_start <= c.size else 0
    _check_places(tensors, room, data_start, alignment)
    return version, alignment, data_start, fields, tensors


cdef int _check_bounds(
    const int64_t[::1] offsets, const int64_t[::1] lengths, Py_ssize_t size
) except -1:
    cdef Py_ssize_t i
    if lengths.shape[0] != offsets.shape[0]:
        raise ValueError("as many lengths as offsets are needed")
    for i in range(offsets.shape[0]):
        if offsets[i] < 0 or lengths[i] < 0 or offsets[i] > size or lengths[i] > size - offsets[i]:
            raise ValueError(f"string {i} reaches outside the buffer")
    return 0


def strings_to_list(
    buffer, const int64_t[::1] offsets, const int64_t[::1] lengths, bint decode
):
    """Strings that stand in a buffer, as a list of str (or of bytes).

    Raises
    ------
    UnicodeDecodeError
        With `decode`, a string that is not UTF-8.
    """
    cdef const uint8_t[::1] view = buffer
    _check_bounds(offsets, lengths, view.shape[0])
    if view.shape[0] == 0:
        return ["" if decode else b""] * offsets.shape[0]
    cdef const char* data = <const char*>&view[0]
    cdef Py_ssize_t i
    cdef list out = [None] * offsets.shape[0]
    for i in range(offsets.shape[0]):
        if decode:
            out[i] = PyUnicode_DecodeUTF8(data + offsets[i], lengths[i], NULL)
        else:
            out[i] = PyBytes_FromStringAndSize(data + offsets[i], lengths[i])
    return out


def first_bad_utf8(buffer, const int64_t[::1] offsets, const int64_t[::1] lengths):
    """Index of the first string that is not UTF-8; -1 if all are. Runs without the GIL."""
    cdef const uint8_t[::1] view = buffer
    _check_bounds(offsets, lengths, view.shape[0])
    cdef Py_ssize_t i
    cdef Py_ssize_t n = offsets.shape[0]
    cdef Py_ssize_t found = -1
    if view.shape[0] == 0:
        return -1
    cdef const uint8_t* data = &view[0]
    with nogil:
        for i in range(n):
            if rl_utf8_valid_prefix(data + offsets[i], lengths[i]) != <size_t>lengths[i]:
                found = i
                break
    return found
