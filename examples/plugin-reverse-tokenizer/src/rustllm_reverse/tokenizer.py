"""The tokenizer itself; everything that is not written here comes from `rustllm.Tokenizer`."""

import numpy as np

from rustllm import Tokenizer
from rustllm.errors import UnknownTokenError


class ReverseTokenizer(Tokenizer):
    """A token a byte of UTF-8; token `i` is byte ``255 - i``.

    Examples
    --------
    >>> from rustllm_reverse.tokenizer import ReverseTokenizer
    >>> ReverseTokenizer().encode("hi")
    [151, 150]
    """

    @property
    def name(self):
        return "reverse"

    @property
    def n_vocab(self):
        return 256

    def id_to_bytes(self, id):
        if not 0 <= id < 256:
            raise UnknownTokenError(f"no token has the id {id}", token=id)
        return bytes((255 - id,))

    def _encode_ordinary_to_numpy(self, text):
        data = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        return (255 - np.frombuffer(data, np.uint8)).astype(np.uint32)
