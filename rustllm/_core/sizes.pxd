# Sizes that come from Python, checked once, in one way.

# Sums of a few sizes below this cannot overflow.
cdef size_t MAX_BYTES

# `value` as a size, or our ArgumentError / OutOfMemoryError; `name` says which argument it was.
cdef size_t checked_size(value, str name) except? <size_t> -1
