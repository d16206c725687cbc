"""Files of JSON lines to token shards, beside the bare encoder on the same texts."""

import json
import shutil
import tempfile
from pathlib import Path

from rustllm import corpus
from rustllm.bench import measure

TEXT = "The quick brown fox doesn't jump over 123 lazy dogs; it naps — naïvely. "


def make_tokenizer():
    """A byte-pair encoding that needs no file."""
    import rustllm

    ranks = rustllm.BpeTrainer(2000).train([TEXT * 50]).mergeable_ranks()
    specials = {"<|endoftext|>": len(ranks)}
    return rustllm.Encoding("small", pat_str="gpt2", mergeable_ranks=ranks, special_tokens=specials)


class Tokenize:
    """20 MB of JSON lines with one worker and with two."""

    params = [1, 2]
    param_names = ["workers"]
    timeout = 300

    def setup(self, workers):
        self.tokenizer = make_tokenizer()
        self.folder = Path(tempfile.mkdtemp())
        self.texts = [TEXT * (1 + i % 60) for i in range(9_000)]
        self.source = self.folder / "in.jsonl"
        with self.source.open("w") as file:
            for text in self.texts:
                file.write(json.dumps({"text": text}) + "\n")

    def teardown(self, workers):
        shutil.rmtree(self.folder)

    def run(self, workers):
        out = self.folder / "out"
        corpus.tokenize([self.source], out, self.tokenizer, workers=workers, unit_bytes=2 << 20)
        shutil.rmtree(out)

    def time_tokenize(self, workers):
        self.run(workers)

    def peakmem_tokenize(self, workers):
        self.run(workers)

    def track_time_times_bare_encoder(self, workers):
        whole = measure(lambda: self.run(workers), repeats=5, min_time=0)
        bare = measure(
            lambda: self.tokenizer.encode_batch_flat(self.texts, workers, disallowed_special=()),
            repeats=5,
            min_time=0,
        )
        return whole.median / bare.median

    def track_megabytes_per_second(self, workers):
        n = self.source.stat().st_size
        return (
            measure(lambda: self.run(workers), repeats=5, min_time=0, n_bytes=n).bytes_per_second
            / 1e6
        )
