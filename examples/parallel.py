"""Work on several cores: results in order, the source read no further ahead than asked."""

import rustllm

text = "The quick brown fox jumps over the lazy dog. "
documents = (text * (i % 50 + 1) for i in range(2_000))
model = rustllm.load_model("smollm2-135m-instruct")
tokenizer = model.tokenizer

# Threads: the encoder releases the GIL. At most 64 documents lie between source and consumer.
with rustllm.parallel_map(tokenizer.count, documents, workers=2, max_items=64) as counts:
    first = [next(counts) for _ in range(3)]  # closing early joins the workers
print(first)

# For a list of texts there is a call that does it all.
batch = tokenizer.encode_batch_flat([text * n for n in (1, 2, 3)])
print(batch.offsets)
assert [len(ids) for ids in batch] == first
