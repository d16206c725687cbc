"""Products with packed weights, by block type and number of rows of activations."""

import numpy as np

from rustllm._core import linear, quant

TYPES = {
    "F32": 0,
    "F16": 1,
    "BF16": 30,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "IQ4_NL": 20,
}
N_ROWS, N_COLS = 2048, 2048


class Linear:
    """One row of activations reads weights; 64 compute with them."""

    params = [list(TYPES), [1, 64]]
    param_names = ["type", "tokens"]

    def setup(self, name, tokens):
        rng = np.random.default_rng(0)
        weights = rng.standard_normal(N_ROWS * N_COLS, np.float32)
        source = (
            np.ascontiguousarray(quant.quantize(weights, TYPES[name])).view(np.uint8).reshape(-1)
        )
        self.matrix = linear.PackedMatrix(TYPES[name], N_ROWS, N_COLS, source)
        linear.pack([self.matrix])
        self.x = rng.standard_normal((tokens, N_COLS), np.float32)

    def time_matmul(self, name, tokens):
        self.matrix.matmul(self.x)
