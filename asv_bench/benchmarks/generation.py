"""Generation: forks, texts together, drawing, guessing ahead."""

import numpy as np

import rustllm
from rustllm._core.sample import Sampler
from rustllm.models.store import find_model

IDS = np.array([(i * 7919) % 20000 + 300 for i in range(1600)], np.int32)
CODE = "".join(
    f"def {name}(a, b):\n    return a {sign} b\n\n\n"
    for name, sign in (("add", "+"), ("subtract", "-"), ("multiply", "*"))
)


class States:
    """A state of 1,500 tokens."""

    def setup(self):
        self.model = rustllm.load_model(find_model("smollm2-135m-instruct"))
        self.state = self.model.new_state(2048)
        self.model.forward(IDS[:1500], self.state)

    def time_fork(self):
        self.state.fork()

    def track_bytes_after_one_token(self):
        """Memory of a fork that has read one token, beyond what it shares."""
        twin = self.state.fork()
        self.model.forward(IDS[:1], twin)
        return twin.nbytes - twin.shared_bytes


class Together:
    """32 tokens of each of several texts, by how many run together."""

    params = [["smollm2-135m-instruct", "gemma-3-270m"], [1, 2, 4, 8]]
    param_names = ["model", "texts"]

    def setup(self, name, texts):
        self.model = rustllm.load_model(find_model(name))
        self.prompts = [IDS[8 * i : 8 * i + 8].tolist() for i in range(texts)]
        self.options = {"max_tokens": 32, "temperature": 0.8, "top_p": 0.9, "seed": 1}

    def time_generate_batch(self, name, texts):
        self.model.generate_batch(self.prompts, max_sequences=texts, **self.options).texts()


class Draw:
    """One token from a row, by the cuts."""

    params = [
        [49152, 262144],
        ["greedy", "uncut", "top_k", "top_p", "min_p", "typical_p", "penalties"],
    ]
    param_names = ["n_vocab", "cuts"]

    def setup(self, n_vocab, cuts):
        options = {
            "greedy": {"temperature": 0},
            "uncut": {},
            "top_k": {"top_k": 40},
            "top_p": {"top_p": 0.9},
            "min_p": {"min_p": 0.05},
            "typical_p": {"typical_p": 0.9},
            "penalties": {"top_p": 0.9, "repeat_penalty": 1.1, "presence_penalty": 0.1},
        }[cuts]
        self.draw = Sampler(n_vocab, seed=1, **options)
        self.draw.extend(range(64))
        self.row = np.random.default_rng(0).standard_normal(n_vocab).astype(np.float32) * 3
        self.row[:5] += 12

    def time_draw(self, n_vocab, cuts):
        self.draw(self.row)


class GuessAhead:
    """64 tokens of code, with and without looking the text up."""

    params = [[None, "lookup"]]
    param_names = ["draft"]

    def setup(self, draft):
        self.model = rustllm.load_model(find_model("smollm2-135m-instruct"))

    def time_generate(self, draft):
        self.model.generate(CODE, max_tokens=64, temperature=0, draft=draft).text()
