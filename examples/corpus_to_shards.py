"""Texts to token shards, resumably, and windows of them as training takes them."""

import json
import tempfile
from pathlib import Path

import rustllm

folder = Path(tempfile.mkdtemp())
with (folder / "records.jsonl").open("w", encoding="utf-8") as file:
    for i in range(500):
        file.write(json.dumps({"text": f"Document {i} says what the last one said. " * 5}) + "\n")

tokenizer = rustllm.load_model("smollm2-135m-instruct").tokenizer

# Killed at any moment and started again, this ends with the same bytes.
corpus = rustllm.corpus.tokenize(
    [folder / "records.jsonl"], folder / "shards", tokenizer, end_token="<|endoftext|>"
)
print(len(corpus), "documents,", len(corpus.ids), "tokens")
print(tokenizer.decode(corpus[0]))

# Windows are views of the mapped file: nothing is copied until it is used.
windows = rustllm.windows(corpus.ids, 65, stride=64)
print(len(windows), "windows; inputs and targets of the first:")
print(windows[0][:-1][:8], windows[0][1:][:8])
