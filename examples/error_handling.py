"""What an error says: a stable code, typed fields, a hint, and what was being done."""

import tempfile
from pathlib import Path

import rustllm
from rustllm import RustLLMError, error_chain, error_context

path = Path(tempfile.mkdtemp()) / "broken.gguf"
path.write_bytes(b"GGUF" + bytes(2))  # a header that ends too early

try:
    with error_context("comparing two models", name="the second"):
        rustllm.GGUFFile(path)
except RustLLMError as error:
    print("code:  ", error.code)
    print("where: ", Path(error.path).name)
    print("what:  ", error.message)
    print("hint:  ", error.hint)
    print("exit status of the command line:", error.exit_code)
    for step in error_chain(error):
        print("chain: ", type(step).__name__)

# Every class is also the built-in that fits, so existing handlers go on working.
try:
    rustllm.open_file(path.with_name("missing.txt"))
except FileNotFoundError as error:
    print("a FileNotFoundError too:", type(error).__name__)

try:
    rustllm.load_model("smollm2-135m-instruct", threads=0)
except ValueError as error:
    print("a ValueError too:", type(error).__name__)
