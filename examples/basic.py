"""Text to token ids and back, and a few words from a model."""

import rustllm

model = rustllm.load_model("smollm2-135m-instruct")
tokenizer = model.tokenizer

ids = tokenizer.encode("Tokens are integers.")
print(ids)
print([tokenizer.id_to_bytes(id).decode() for id in ids])
assert tokenizer.decode(ids) == "Tokens are integers."

# An array instead of a list: nothing is made for each token.
array = tokenizer.encode_to_numpy("Tokens are integers. " * 1000)
print(array.dtype, array.shape)

# The most likely continuation, piece by piece. A piece is a str that knows its ids.
for piece in model.generate("The capital of France is", max_tokens=8, temperature=0):
    print(piece, end="", flush=True)
print()

# Below that: scores of every token that may follow.
state = model.new_state(context=64)
scores = model.forward(tokenizer.encode("The capital of France is"), state)
print(tokenizer.decode([int(scores.argmax())]))
