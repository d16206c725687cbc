"""A vocabulary learned from files, saved, loaded and looked into."""

import tempfile
from pathlib import Path

import rustllm

folder = Path(tempfile.mkdtemp())
words = [
    "low",
    "lower",
    "lowest",
    "new",
    "newer",
    "newest",
    "wide",
    "wider",
    "widest",
    "slow",
    "slowest",
]
for i in range(3):
    lines = (" ".join(words[j % (7 + i)] for j in range(n, n + 9)) for n in range(2_000))
    (folder / f"part{i}.txt").write_text("\n".join(lines), "utf-8")

trainer = rustllm.BpeTrainer(vocab_size=300, pattern="gpt2", special_tokens=["<|endoftext|>"])
trained = trainer.train_files(sorted(folder.glob("part*.txt")))
print(trained.n_vocab, "tokens; the first merges:", trained.merges_as_text()[:5])

trained.save(folder / "tokenizer.json")
loaded = rustllm.load_tokenizer(folder / "tokenizer.json")
ids = loaded.encode("the slowest newest low")
print(ids, [loaded.id_to_bytes(id).decode() for id in ids])
assert loaded.decode(ids) == "the slowest newest low"
assert ids == trained.encode("the slowest newest low")
