# A layer of experts of which each token goes through a few.

from libc.stdint cimport int32_t, int64_t, uint8_t

from rustllm._core.linear cimport LinearKernels, rl_matrix

ctypedef void (*activate_fn)(int, float*, const float*, int) noexcept nogil

# What the model says; the matrices are arrays of `n_experts` pointers.
cdef struct ExpertLayer:
    int n_experts
    int n_used
    int n_in                    # width of a token
    int n_hidden
    bint normalise              # make a token's weights add up to 1
    bint float_in               # inputs of gate and up are float32 instead of int8
    bint float_hidden           # and those of down
    int activation
    const rl_matrix** gate
    const rl_matrix** up
    const rl_matrix** down

# Memory of one call. A *column* is a token at one of its experts; an expert's are neighbours.
cdef struct ExpertSpace:
    int32_t* chosen             # [n][n_used], experts of a token, the best first
    float* weights              # [n][n_used]
    int32_t* column             # [n][n_used]
    int32_t* first              # [n_experts + 1]: columns of each expert
    int32_t* active             # experts that have any
    int n_active
    uint8_t* inputs             # columns in the tiles of the kernels
    float* gate                 # [columns][n_hidden rounded up to 32]
    float* up
    uint8_t* hidden
    float* outputs              # [columns][n_in rounded up to 32]

# Bytes that a call of `n` tokens needs; `place` points the fields into memory of that size.
cdef int64_t expert_bytes(const ExpertLayer* layer, int64_t n) noexcept nogil
cdef void expert_place(const ExpertLayer* layer, int64_t n, uint8_t* memory,
                       ExpertSpace* out) noexcept nogil

# The steps, between which all threads meet.
cdef void expert_route(const ExpertLayer* layer, ExpertSpace* space, int token,
                       const float* scores) noexcept nogil
cdef void expert_sort(const ExpertLayer* layer, ExpertSpace* space, int n) noexcept nogil
cdef void expert_input(const ExpertLayer* layer, ExpertSpace* space, LinearKernels* kernels,
                       int token, const float* x) noexcept nogil
cdef void expert_gated(const ExpertLayer* layer, ExpertSpace* space, LinearKernels* kernels,
                       activate_fn activate, int* next, int n_threads) noexcept nogil
cdef void expert_hidden(const ExpertLayer* layer, ExpertSpace* space, LinearKernels* kernels,
                        int column, float* scratch) noexcept nogil
cdef void expert_down(const ExpertLayer* layer, ExpertSpace* space, LinearKernels* kernels,
                      int* next, int n_threads) noexcept nogil
cdef void expert_output(const ExpertLayer* layer, ExpertSpace* space, int token,
                        float* y) noexcept nogil
