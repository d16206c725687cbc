"""Our own implementations pass the kits, and broken ones do not."""

import numpy as np
import pytest

from rustllm.errors import UnknownTokenError
from rustllm.testing import (
    BigramBuilder,
    BigramConfig,
    BigramModel,
    BuilderConformance,
    ByteTokenizer,
    ConfigConformance,
    LanguageModelConformance,
    PluginConformance,
    TokenConformance,
    TokenizerConformance,
)
from rustllm.traits import Plugin, VocabularyToken


class TestByteTokenizer(TokenizerConformance):
    def make(self):
        return ByteTokenizer(["<end>", "<pad>"])


class TestBigramModel(LanguageModelConformance):
    def make(self):
        return BigramModel.fit("the quick brown fox. " * 3)


class TestBigramConfig(ConfigConformance):
    def make(self):
        return BigramConfig(256)


class TestBigramBuilder(BuilderConformance):
    def make(self):
        return BigramBuilder()

    def config(self):
        return BigramConfig(3)

    def weights(self):
        return {"counts": np.ones((3, 3), np.float32)}


class TestVocabularyToken(TokenConformance):
    def make(self):
        return VocabularyToken(5, b"five")


class Quiet(Plugin):
    def setup(self, context):
        context.register("tokenizer", "quiet", ByteTokenizer)


class TestPlugin(PluginConformance):
    def make(self):
        return Quiet()


# -- the kits find what is broken -----------------------------------------------------------------


class SharesItsBuffer(ByteTokenizer):
    cache = {}

    def _encode_ordinary_to_numpy(self, text):
        return self.cache.setdefault(text, super()._encode_ordinary_to_numpy(text))


class WrongType(ByteTokenizer):
    def _encode_ordinary_to_numpy(self, text):
        return super()._encode_ordinary_to_numpy(text).astype(np.int64)


class LosesSpaces(ByteTokenizer):
    def _encode_ordinary_to_numpy(self, text):
        return super()._encode_ordinary_to_numpy(text.replace(" ", ""))


class PlainKeyError(ByteTokenizer):
    def id_to_bytes(self, id):
        try:
            return super().id_to_bytes(id)
        except UnknownTokenError:
            raise KeyError(id) from None


class IgnoresSpecials(ByteTokenizer):
    def encode(self, text, **options):
        return self.encode_ordinary(text)


class CutsCharacters(ByteTokenizer):
    def stream_decoder(self, errors="replace"):
        class Decoder:
            push = staticmethod(lambda id: bytes([id]).decode("utf-8", "replace"))
            finish = staticmethod(lambda: "")

        return Decoder()


class Unpicklable(ByteTokenizer):
    def __reduce__(self):
        raise TypeError("no")


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (SharesItsBuffer, "all_ways_to_encode_agree"),
        (WrongType, "all_ways_to_encode_agree"),
        (LosesSpaces, "decoding_gives_the_text_back"),
        (PlainKeyError, "unknown_ids"),
        (IgnoresSpecials, "special_tokens"),
        (CutsCharacters, "streamed_text"),
        (Unpicklable, "after_pickling"),
    ],
)
def test_a_broken_tokenizer_fails_the_check_for_what_is_broken(broken, check):
    class Kit(TokenizerConformance):
        def make(self):
            return broken(["<end>"])

    with pytest.raises(AssertionError) as caught:
        Kit().run()
    assert check in str(caught.value)


class ForgetsToCheckContext(BigramModel):
    def forward(self, ids, state, logits="last"):
        state._context = 10**9
        return super().forward(ids, state, logits)


class ChangesStateOnError(BigramModel):
    def forward(self, ids, state, logits="last"):
        state.ids.append(0)
        result = super().forward(ids, state, logits)
        state.ids.remove(0)
        return result


class DependsOnThePast(BigramModel):
    def forward(self, ids, state, logits="last"):
        return super().forward(ids, state, logits) + np.float32(state.position)


class WorksWhenClosed(BigramModel):
    def require(self, phase):
        pass


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (ForgetsToCheckContext, "call_that_fails"),
        (ChangesStateOnError, "call_that_fails"),
        (DependsOnThePast, "in_pieces"),
        (WorksWhenClosed, "closed"),
    ],
)
def test_a_broken_model_fails_the_check_for_what_is_broken(broken, check):
    class Kit(LanguageModelConformance):
        def make(self):
            return broken.fit("abc abd")

    with pytest.raises(AssertionError) as caught:
        Kit().run()
    assert check in str(caught.value)


class LeavesAThread(Quiet):
    def start(self):
        import threading

        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.stopped.wait)
        self.thread.start()


def test_a_plugin_that_leaves_a_thread_fails(monkeypatch):
    import threading

    made = []

    class Kit(PluginConformance):
        def make(self):
            made.append(LeavesAThread())
            return made[-1]

    monkeypatch.setattr(
        threading.Thread,
        "join",
        lambda self, timeout=None, join=threading.Thread.join: join(self, 0),
    )  # no need to wait the ten seconds
    with pytest.raises(AssertionError, match="still running"):
        Kit().test_setup_starts_no_thread_and_stop_ends_all()
    monkeypatch.undo()
    for plugin in made:
        plugin.stopped.set()
        plugin.thread.join()
