"""Operations on arrays beside numpy and torch, and the cost of constraining text."""

import numpy as np

from rustllm import constrain, ops

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


class Linear:
    """float32 products; `numpy` uses as many threads as its BLAS likes."""

    params = [[1, 512], [1, 2]]
    param_names = ["rows", "threads"]

    def setup(self, rows, threads):
        self.x, self.w = normal(rows, 2048), normal(2048, 2048)
        self.out = np.empty((rows, 2048), np.float32)

    def time_rustllm(self, rows, threads):
        ops.linear(self.x, self.w, out=self.out, threads=threads)

    def time_numpy(self, rows, threads):
        np.matmul(self.x, self.w.T, out=self.out)


def queries_keys_values(n_queries):
    n_keys = 512 if n_queries > 1 else 4096
    return normal(9, n_queries, 64), normal(9, n_keys, 64), normal(9, n_keys, 64)


class Attention:
    """Many queries, and one over a long cache."""

    params = [[512, 1], [1, 2]]
    param_names = ["queries", "threads"]

    def setup(self, queries, threads):
        self.arrays = queries_keys_values(queries)
        self.out = np.empty_like(self.arrays[0])

    def time_rustllm(self, queries, threads):
        ops.attention(*self.arrays, causal=queries > 1, out=self.out, threads=threads)


class AttentionPeer:
    """The same with torch, where it is installed."""

    params = Attention.params
    param_names = Attention.param_names

    def setup(self, queries, threads):
        try:
            import torch
        except ImportError:
            raise NotImplementedError("torch is not installed") from None
        torch.set_num_threads(threads)
        self.attend = torch.nn.functional.scaled_dot_product_attention
        self.tensors = [torch.from_numpy(a)[None] for a in queries_keys_values(queries)]

    def time_torch(self, queries, threads):
        self.attend(*self.tensors, is_causal=queries > 1)


class Mask:
    """Tokens that fit inside a JSON string: the first time, and again."""

    def setup(self):
        from rustllm.models.load import load_model
        from rustllm.models.store import find_model

        model = load_model(find_model("smollm2-135m-instruct"))
        self.tokenizer, self.ends = model.tokenizer, model.end_ids
        self.scores = np.zeros(model.config.n_vocab, np.float32)
        self.matcher = self.begin()

    def begin(self):
        matcher = constrain.json_schema({"type": "string"}).start(self.tokenizer, self.ends)
        matcher.advance(self.tokenizer.bytes_to_id(b'"'))
        return matcher

    def time_compile_and_first_mask(self):
        self.begin().mask(self.scores)

    def time_mask_again(self):
        self.matcher.mask(self.scores)
