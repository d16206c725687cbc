"""``rustllm quantize``."""

import json

import numpy as np

from rustllm.cli import main
from rustllm.loaders.gguf import GGUFFile
from rustllm.loaders.gguf_writer import write_gguf


def test_it_writes_the_type_and_tells_the_sizes(tmp_path, capsys):
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    write_gguf(source, {}, {"w.weight": np.ones((4, 64), np.float32)})
    assert main(["quantize", str(source), str(target), "q8_0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["types"] == {"Q8_0": 1}
    assert GGUFFile(target).tensors["w.weight"].type_name == "Q8_0"
    assert main(["quantize", str(source), str(target), "q8_0", "--threads", "1"]) == 0
    assert "MB" in capsys.readouterr().out


def test_bad_arguments_have_their_exit_status(tmp_path, capsys):
    source = tmp_path / "a.gguf"
    write_gguf(source, {}, {"w.weight": np.ones((4, 64), np.float32)})
    target = str(tmp_path / "b.gguf")
    assert main(["quantize", str(source), target, "q17"]) == 2
    assert main(["quantize", str(source), target, "q8_0", "--threads", "0"]) == 2
    assert main(["quantize", str(tmp_path / "none"), target, "q8_0"]) == 3
    assert main(["quantize", __file__, target, "q8_0"]) == 4
    assert "Traceback" not in capsys.readouterr().err


def test_inspect_names_the_types_of_safetensors(tmp_path, capsys):
    header = {"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    told = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(told).to_bytes(8, "little") + told + bytes(4))
    assert main(["inspect", str(path), "--json"]) == 0
    (tensor,) = json.loads(capsys.readouterr().out)["tensors"]
    assert (tensor["type"], tensor["shape"], tensor["bytes"]) == ("BF16", [2], 4)
