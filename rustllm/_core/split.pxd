# Pre-tokenization: where the pretokens of a text end, for the patterns that public models use.
#
# Every function here takes UTF-8 bytes, needs no GIL, allocates nothing and never reads outside
# text[at:end]. Byte `at` must start a pretoken; bytes that are not UTF-8 count as characters of
# their own. `next_end` is the plain reading of each regular expression; `split_ends` gives the same
# ends many at a time and is what encoders and trainers call.

from libc.stdint cimport uint8_t, uint32_t

cpdef enum Pattern:
    GPT2 = 0        # r50k_base, p50k_base, GPT-2, GPT-NeoX
    CL100K = 1      # cl100k_base, Llama 3
    O200K = 2       # o200k_base, o200k_harmony
    QWEN2 = 3       # CL100K with digits one at a time
    SMOLLM = 4      # digits one at a time, then GPT2
    TEKKEN = 5      # Mistral: O200K without contractions, digits one at a time
    DEEPSEEK = 6    # DeepSeek V3 and R1: numbers, then CJK runs, then the rest
    CL100K_TIKTOKEN = 7     # CL100K, but space up to the end of the text is one pretoken
    N_PATTERNS = 8

# End of the pretoken that starts at `at` < `end`.
cdef Py_ssize_t next_end(
    int pattern, const uint8_t* text, Py_ssize_t at, Py_ssize_t end
) noexcept nogil

# Write the ends of consecutive pretokens from `at` on, as offsets from `text`, until the text ends
# or `room` are written; returns how many. ends[n - 1] is where to continue. `end` < 2**32.
cdef Py_ssize_t split_ends(
    int pattern, const uint8_t* text, Py_ssize_t at, Py_ssize_t end,
    uint32_t* ends, Py_ssize_t room
) noexcept nogil

# Some position p in (from_, end) where a pretoken is known to start whatever precedes it, looking
# forward from `from_`; `end` if there is none within `reach` bytes.
cdef Py_ssize_t find_safe_cut(
    const uint8_t* text, Py_ssize_t from_, Py_ssize_t end, Py_ssize_t reach
) noexcept nogil
