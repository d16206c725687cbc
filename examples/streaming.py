"""A file of any size through a pipeline: lines to ids to fixed windows, in bounded memory."""

import tempfile
from pathlib import Path

import rustllm

path = Path(tempfile.mkdtemp()) / "log.txt"
path.write_text("".join(f"line {i}: nothing to report\n" for i in range(20_000)), "utf-8")

tokenizer = rustllm.WhitespaceTokenizer.fit([path.read_text("utf-8")])


def ids_of(pieces):
    """Ids of pieces of text as they come; a piece ends where a line ends."""
    for piece in pieces:
        yield tokenizer.encode_to_numpy(piece)


# `stream_text` reads a piece at a time, whatever the file's size or the length of its lines.
n_windows = 0
largest = 0
with rustllm.stream_text(path, unit="line") as lines:
    blocks = rustllm.stream.pipe(lines, ids_of)
    ids = rustllm.TokenIterator(id for block in blocks for id in block)
    for window in ids.window(128, stride=128):
        n_windows += 1
        largest = max(largest, *window)
print(f"{n_windows} windows of 128 ids, the largest id is {largest}")
assert n_windows > 0 and largest < tokenizer.n_vocab
