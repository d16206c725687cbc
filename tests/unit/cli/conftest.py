"""What commands are tried on."""

import pytest

from rustllm.testing import BigramModel


class Talker(BigramModel):
    """A bigram model with a chat template."""

    def format_chat(self, messages):
        return "".join(f"{m['role']}: {m['content']} " for m in messages) + "the c"


@pytest.fixture
def talker():
    return Talker.fit("the cat sat. the cat ran. ")
