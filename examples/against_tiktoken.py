"""The same vocabulary here and in tiktoken, if it is installed: equal ids, and the time of each."""

import random

import rustllm
from rustllm import bench

pick = random.Random(1)
words = ["".join(pick.choices("etaoinshrdlucmf", k=pick.randint(2, 9))) for _ in range(3_000)]
text = " ".join(pick.choice(words) for _ in range(20_000))

trained = rustllm.BpeTrainer(vocab_size=4_000, pattern="gpt2").train([text])
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

candidates = {"rustllm": lambda: trained.encode_ordinary(text)}
try:
    import tiktoken
except ImportError:
    print("tiktoken is not installed; this times rustllm alone: pip install tiktoken")
else:
    peer = tiktoken.Encoding(
        "x", pat_str=PATTERN, mergeable_ranks=trained.mergeable_ranks(), special_tokens={}
    )
    assert peer.encode_ordinary(text) == trained.encode_ordinary(text)
    candidates["tiktoken"] = lambda: peer.encode_ordinary(text)

print(bench.compare(candidates, rounds=5, n_bytes=len(text.encode())))
