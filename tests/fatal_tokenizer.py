"""A tokenizer whose process dies half-way, once: what schedulers have to survive."""

import os
import signal
from pathlib import Path

from rustllm.testing import ByteTokenizer


class FatalTokenizer(ByteTokenizer):
    """Kills its process at the first text with `word` in it, unless the marker says it has."""

    def __init__(self, marker, word):
        super().__init__(["<end>"])
        self.marker, self.word = str(marker), word

    def encode_batch_flat(self, texts, *args, **options):
        if any(self.word in text for text in texts):
            try:
                Path(self.marker).open("x").close()
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_batch_flat(texts, *args, **options)
