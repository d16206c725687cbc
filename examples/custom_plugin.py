"""A tokenizer of your own as a plugin: registered, used by name, and released."""

import numpy as np

from rustllm import Plugin, PluginManager, Tokenizer
from rustllm.errors import UnknownTokenError


class Nibbles(Tokenizer):
    """Two tokens a byte: its high and its low four bits."""

    name = "nibbles"
    n_vocab = 16

    def id_to_bytes(self, id):
        raise UnknownTokenError(f"token {id} is half a byte", token=id)

    def _encode_ordinary_to_numpy(self, text):
        data = np.frombuffer(text.encode(), np.uint8)
        return np.stack([data >> 4, data & 15], axis=1).reshape(-1).astype(np.uint32)

    def decode_bytes(self, ids):
        halves = np.asarray(list(ids), np.uint8).reshape(-1, 2)
        return (halves[:, 0] << 4 | halves[:, 1]).tobytes()


class NibblePlugin(Plugin):
    """Offers the tokenizer while it is active; the manager takes it back when it stops."""

    def setup(self, context):
        context.provide("tokenizer", "nibbles", Nibbles)


manager = PluginManager(safe_mode=False)
manager.add(NibblePlugin(), {"api": "1", "id": "example.nibbles", "version": "1.0"})
manager.start()

tokenizer = manager.registry.get("tokenizer", "nibbles")()
ids = tokenizer.encode_ordinary("hi")
print(ids, tokenizer.decode_bytes(ids))
assert tokenizer.decode_bytes(ids) == b"hi"

manager.stop()
print("after stop:", [name for name in manager.registry.names("tokenizer") if name == "nibbles"])
