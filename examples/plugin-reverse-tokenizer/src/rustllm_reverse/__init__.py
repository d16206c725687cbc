"""A tokenizer that numbers bytes from the top: byte 255 is token 0."""
