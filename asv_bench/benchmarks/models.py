"""Load, prefill, decode: the default model, by number of threads."""

import resource

import numpy as np

import rustllm
from rustllm.models.store import find_model

IDS = np.array([(i * 7919) % 20000 + 300 for i in range(1600)], np.int32)


class Load:
    """From a file to a model that is ready for its first token."""

    params = [1, 2]
    param_names = ["threads"]

    def setup(self, threads):
        self.path = find_model("smollm2-135m-instruct")

    def time_load(self, threads):
        rustllm.load_model(self.path, threads=threads).new_state(2048)

    def track_peak_over_file(self, threads):
        """Peak memory of this process over the size of the file."""
        rustllm.load_model(self.path, threads=threads)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / self.path.stat().st_size


class Forward:
    """Passes of a loaded model."""

    params = [1, 2]
    param_names = ["threads"]

    def setup(self, threads):
        self.model = rustllm.load_model(find_model("smollm2-135m-instruct"), threads=threads)
        self.state = self.model.new_state(2048)
        self.model.forward(IDS[:16], self.state)

    def time_prefill_512(self, threads):
        self.state.truncate(0)
        self.model.forward(IDS[:512], self.state)

    def time_step_after_16(self, threads):
        self.state.truncate(16)
        self.model.forward(IDS[:1], self.state)


class StepAfterLongContext:
    """One token after 1,500, where reading the cache tells."""

    params = [1, 2]
    param_names = ["threads"]

    def setup(self, threads):
        self.model = rustllm.load_model(find_model("smollm2-135m-instruct"), threads=threads)
        self.state = self.model.new_state(2048)
        self.model.forward(IDS[:1500], self.state)

    def time_step(self, threads):
        self.state.truncate(1500)
        self.model.forward(IDS[:1], self.state)


class Linear:
    """One packed matrix, by block type and number of tokens."""

    params = [["Q4_1", "Q8_0"], [1, 256], [1, 2]]
    param_names = ["type", "tokens", "threads"]

    def setup(self, type_name, tokens, threads):
        from rustllm._core.linear import PackedMatrix, pack

        type_id, block_bytes = {"Q4_1": (3, 20), "Q8_0": (8, 34)}[type_name]
        rows, columns = 1536, 1536
        blocks = np.random.default_rng(0).integers(
            0, 256, (rows * columns // 32, block_bytes), dtype=np.uint8
        )
        # Scales, and for Q4_1 the offsets behind them, have to be finite.
        small = np.full((len(blocks), 2), 0.01, np.float16).view(np.uint8)
        blocks[:, : 4 if type_id == 3 else 2] = small[:, : 4 if type_id == 3 else 2]
        self.matrix = PackedMatrix(type_id, rows, columns, blocks.tobytes())
        pack([self.matrix])
        self.x = np.random.default_rng(1).standard_normal((tokens, columns)).astype(np.float32)

    def time_matmul(self, type_name, tokens, threads):
        self.matrix.matmul(self.x, threads=threads)
