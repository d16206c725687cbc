"""A conversation with a small model: the file's own template, a seed, and a limit."""

import rustllm

model = rustllm.load_model("smollm2-135m-instruct")
messages = [{"role": "system", "content": "You answer in one short sentence."}]

for question in ["What is a token?", "And what is a vocabulary?"]:
    print(f"> {question}")
    messages.append({"role": "user", "content": question})
    answer = ""
    for piece in model.chat(messages, max_tokens=48, temperature=0.2, seed=1):
        answer += piece
        print(piece, end="", flush=True)
    print()
    messages.append({"role": "assistant", "content": answer})
