"""Files: opening and reading model files beside the reference readers, text beside open()."""

import gzip
import json
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np

from rustllm._core import quant
from rustllm.loaders.detect import detect_format
from rustllm.loaders.gguf import GGUFFile
from rustllm.loaders.gguf_writer import TensorSource, write_gguf
from rustllm.loaders.records import stream_records
from rustllm.loaders.safetensors import SafetensorsFile
from rustllm.loaders.text import read_text, stream_text

N_TOKENS = 100_000
ELEMENTS = 1 << 22


def _module(name):
    """An optional reader to compare with; its benchmarks are skipped without it."""
    try:
        return import_module(name)
    except ImportError:
        raise NotImplementedError(f"{name} is not installed") from None


class _Files:
    """Files made once for all benchmarks of a class, and removed at the end."""

    def setup_cache(self):
        folder = Path(tempfile.mkdtemp(dir=".")).resolve()  # asv removes its working folder
        rng = np.random.default_rng(0)
        arrays = {
            f"blk.{i}.weight": rng.standard_normal((512, 1024), dtype=np.float32) for i in range(64)
        }
        metadata = {
            "general.architecture": "demo",
            "tokenizer.ggml.tokens": [f"token{i}" for i in range(N_TOKENS)],
            "tokenizer.ggml.scores": np.zeros(N_TOKENS, np.float32),
        }
        write_gguf(folder / "model.gguf", metadata, arrays)
        header = {}
        at = 0
        for name, array in arrays.items():
            place = [at, at + array.nbytes]
            header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": place}
            at += array.nbytes
        told = json.dumps(header).encode()
        with (folder / "model.safetensors").open("wb") as out:
            out.write(len(told).to_bytes(8, "little") + told)
            for array in arrays.values():
                out.write(array.tobytes())
        lines = "".join(f"line {i} of a text with ümläuts, so to speak\n" for i in range(500_000))
        (folder / "text.txt").write_text(lines, encoding="utf-8")
        (folder / "text.txt.gz").write_bytes(gzip.compress(lines.encode(), 1))
        rows = "".join(json.dumps({"id": i, "text": "x" * 50}) + "\n" for i in range(100_000))
        (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
        return folder


class OpenModel(_Files):
    """Open a file of 64 tensors and a vocabulary of 100,000, and look at no tensor."""

    def time_gguf(self, folder):
        GGUFFile(folder / "model.gguf").close()

    def time_gguf_reference(self, folder):
        _module("gguf").GGUFReader(folder / "model.gguf")

    def time_gguf_tokens(self, folder):
        with GGUFFile(folder / "model.gguf") as file:
            file.metadata["tokenizer.ggml.tokens"].as_bytes_list()

    def time_safetensors(self, folder):
        SafetensorsFile(folder / "model.safetensors").close()

    def time_safetensors_reference(self, folder):
        with _module("safetensors").safe_open(folder / "model.safetensors", "np"):
            pass


class ReadModel(_Files):
    """Touch every value of 128 MiB of float32 tensors."""

    def time_gguf(self, folder):
        with GGUFFile(folder / "model.gguf") as file:
            return sum(float(tensor.array().sum()) for tensor in file.tensors.values())

    def time_gguf_reference(self, folder):
        reader = _module("gguf").GGUFReader(folder / "model.gguf")
        return sum(float(tensor.data.sum()) for tensor in reader.tensors)

    def time_safetensors(self, folder):
        with SafetensorsFile(folder / "model.safetensors") as file:
            return sum(float(array.sum()) for array in file.tensors.values())

    def time_safetensors_reference(self, folder):
        load = _module("safetensors.numpy").load_file
        return sum(float(array.sum()) for array in load(folder / "model.safetensors").values())


class Blocks:
    """Blocks to float32 and back, four million elements."""

    params = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K"]
    params += ["Q4_K", "Q5_K", "Q6_K"]
    param_names = ["type"]
    timeout = 120

    def setup(self, name):
        self.values = np.random.default_rng(0).standard_normal(ELEMENTS // 16, dtype=np.float32)
        blocks = quant.quantize(self.values, name)
        self.blocks = np.tile(blocks, 16)
        self.out = np.empty(ELEMENTS, np.float32)

    def time_dequantize(self, name):
        quant.dequantize(self.blocks, name, out=self.out)

    def time_dequantize_reference(self, name):
        gguf = _module("gguf")
        gguf.quants.dequantize(self.blocks.reshape(64, -1), gguf.GGMLQuantizationType[name])

    def time_quantize_a_sixteenth(self, name):
        quant.quantize(self.values, name)


class ReadText(_Files):
    """25 MB of text in 500,000 lines."""

    def time_read(self, folder):
        read_text(folder / "text.txt")

    def time_read_by_open(self, folder):
        with (folder / "text.txt").open(encoding="utf-8", newline="") as file:
            file.read()

    def time_chunks(self, folder):
        for _ in stream_text(folder / "text.txt"):
            pass

    def time_lines(self, folder):
        for _ in stream_text(folder / "text.txt", unit="line"):
            pass

    def time_lines_by_open(self, folder):
        with (folder / "text.txt").open(encoding="utf-8") as file:
            for _ in file:
                pass

    def time_lines_of_gzip(self, folder):
        for _ in stream_text(folder / "text.txt.gz", unit="line"):
            pass

    def time_lines_of_gzip_by_open(self, folder):
        with gzip.open(folder / "text.txt.gz", "rt", encoding="utf-8") as file:
            for _ in file:
                pass

    def time_json_lines(self, folder):
        for _ in stream_records(folder / "rows.jsonl", "jsonl"):
            pass

    def time_json_lines_by_open(self, folder):
        with (folder / "rows.jsonl").open(encoding="utf-8") as file:
            for line in file:
                json.loads(line)

    def time_detect(self, folder):
        for name in ("model.gguf", "model.safetensors", "text.txt", "text.txt.gz", "rows.jsonl"):
            detect_format(folder / name)


class WriteModel:
    """Write 64 MB in blocks."""

    def setup(self):
        self.folder = tempfile.TemporaryDirectory(prefix="rustllm-bench-")
        blocks = bytes(quant.n_bytes("Q8_0", 1 << 20))
        self.tensors = {f"w{i}": TensorSource("Q8_0", (1024, 1024), blocks) for i in range(60)}

    def teardown(self):
        self.folder.cleanup()

    def time_write_gguf(self):
        write_gguf(Path(self.folder.name) / "out.gguf", {}, self.tensors)
