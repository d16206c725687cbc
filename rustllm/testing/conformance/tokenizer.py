"""What every `rustllm.Tokenizer` has to do."""

from __future__ import annotations

import os
import pickle
import threading
from typing import Any

import numpy as np

from rustllm.errors import (
    ArgumentError,
    DisallowedSpecialTokenError,
    RustLLMError,
    TokenizerError,
    UnknownTokenError,
    UnsupportedError,
)
from rustllm.testing.conformance.base import Conformance, expect
from rustllm.traits import Token, Tokenizer, TokenizerLike

__all__ = ["TokenizerConformance"]

_TEXTS = (
    "",
    " ",
    "a",
    "Hello, world!",
    "  two  spaces\t\r\n\n lines ",
    "don't DON'T 1234567 3.14 v1.2.3",
    "naïve café — “quotes” … €",
    "数字と漢字 한국어 עברית العربية हिन्दी",
    "👩‍👩‍👧‍👦 🇩🇪 e\u0301 \u200b\ufeff",
    "\x00\x01\x7f\x85\xa0",
    "x" * 3000,
    " " * 500,
    "ab" * 700 + "!",
)


class TokenizerConformance(Conformance[Tokenizer[Any]]):
    """Checks for tokenizers.

    Attributes
    ----------
    texts : tuple of str
        Texts the checks use.
    lossless : bool
        Whether decoding gives back every text; false for tokenizers that normalize.
    any_text : bool
        Whether every text can be encoded; false for a vocabulary without byte fallback.
    n_ids : int
        How many ids the checks that go through the vocabulary look at.
    """

    texts: tuple[str, ...] = _TEXTS
    lossless = True
    any_text = True
    n_ids = 2000

    def usable(self, tokenizer: Tokenizer[Any]) -> list[str]:
        """Return the texts that the tokenizer can encode."""
        if self.any_text:
            return list(self.texts)
        usable = []
        for text in self.texts:
            try:
                tokenizer.encode_ordinary(text)
            except TokenizerError:
                continue
            usable.append(text)
        assert usable, "none of the texts can be encoded"
        return usable

    def ids(self, tokenizer: Tokenizer[Any]) -> list[int]:
        """Return ids from all over the vocabulary that are in use."""
        step = max(1, tokenizer.n_vocab // self.n_ids)
        used = []
        for id in [*range(0, tokenizer.n_vocab, step), tokenizer.n_vocab - 1]:
            try:
                tokenizer.id_to_bytes(id)
            except UnknownTokenError:
                continue
            used.append(id)
        return used

    def test_it_is_a_tokenizer_by_class_and_by_protocol(self) -> None:
        tokenizer = self.make()
        assert isinstance(tokenizer, Tokenizer)
        assert isinstance(tokenizer, TokenizerLike)
        assert isinstance(tokenizer.n_vocab, int)
        assert tokenizer.n_vocab > 0
        assert isinstance(tokenizer.name, str)

    def test_all_ways_to_encode_agree(self) -> None:
        tokenizer = self.make()
        for text in self.usable(tokenizer):
            ids = tokenizer.encode_ordinary(text)
            assert all(type(id) is int for id in ids)
            assert all(0 <= id < tokenizer.n_vocab for id in ids)
            array = tokenizer.encode_to_numpy(text, disallowed_special=())
            assert array.dtype == np.uint32
            assert array.ndim == 1
            assert array.tolist() == ids, text
            assert tokenizer.encode(text, disallowed_special=()) == ids, text
            assert tokenizer.count(text) == len(ids), text
            array += 1  # ours to change: the next result must not know
            assert tokenizer.encode(text, disallowed_special=()) == ids, text

    def test_decoding_gives_the_text_back(self) -> None:
        tokenizer = self.make()
        for text in self.usable(tokenizer):
            ids = tokenizer.encode_ordinary(text)
            data = tokenizer.decode_bytes(ids)
            assert isinstance(data, bytes)
            assert tokenizer.decode(ids) == data.decode("utf-8", "replace")
            if self.lossless:
                assert tokenizer.decode(ids) == text
                assert data == text.encode()

    def test_decoding_takes_ids_in_any_container(self) -> None:
        tokenizer = self.make()
        ids = tokenizer.encode_ordinary(self.usable(tokenizer)[-1])
        expected = tokenizer.decode(ids)
        for same in (tuple(ids), iter(ids), np.array(ids, np.uint32), np.array(ids, np.int64)):
            assert tokenizer.decode(same) == expected
        assert tokenizer.decode([]) == ""
        assert tokenizer.decode_bytes([]) == b""

    def test_a_batch_is_the_loop_for_any_number_of_threads(self) -> None:
        tokenizer = self.make()
        texts = self.usable(tokenizer)
        expected = [tokenizer.encode_ordinary(text) for text in texts]
        for threads in (None, 1, 3):
            flat = tokenizer.encode_batch_flat(texts, threads, disallowed_special=())
            assert flat.ids.dtype == np.uint32
            assert flat.offsets.dtype == np.int64
            assert [array.tolist() for array in flat] == expected
            assert tokenizer.encode_batch(texts, threads, disallowed_special=()) == expected
        assert list(tokenizer.encode_batch_flat([])) == []
        data = "".join(texts).encode()
        ends = np.cumsum([0, *(len(text.encode()) for text in texts)])
        spans = np.stack([ends[:-1], ends[1:]], axis=1)
        ids, lengths = tokenizer.encode_spans(data, spans, end_id=1, dtype="int32")
        assert ids.dtype == np.int32
        assert ids.tolist() == [id for row in expected for id in (*row, 1)]
        assert lengths.tolist() == [len(row) + 1 for row in expected]
        ids, lengths = tokenizer.encode_spans(data, spans[:0])
        assert (ids.dtype, ids.size, lengths.size) == (np.uint32, 0, 0)
        assert np.asarray(tokenizer.count_batch(texts)).tolist() == [len(e) for e in expected]
        assert tokenizer.decode_batch(expected) == [tokenizer.decode(e) for e in expected]

    def test_special_tokens_are_refused_allowed_or_read_as_text_as_the_call_says(self) -> None:
        tokenizer = self.make()
        for special, id in list(tokenizer.special_tokens.items())[:8]:
            assert 0 <= id < tokenizer.n_vocab
            text = f"a {special} b"
            error = expect(DisallowedSpecialTokenError, tokenizer.encode, text)
            assert error.token
            assert text[error.position :].startswith(error.token)
            assert id in tokenizer.encode(text, allowed_special="all")
            assert id in tokenizer.encode(text, allowed_special={special}, disallowed_special=())
            if self.any_text:
                ordinary = tokenizer.encode(text, disallowed_special=())
                assert ordinary == tokenizer.encode_ordinary(text)
            assert tokenizer.encode_single_token(special) == id
            assert special in tokenizer.special_tokens_set

    def test_ids_and_bytes_name_each_other(self) -> None:
        tokenizer = self.make()
        specials = set(tokenizer.special_tokens.values())
        for id in self.ids(tokenizer)[:: 1 if tokenizer.n_vocab < 3000 else 7]:
            data = tokenizer.id_to_bytes(id)
            assert isinstance(data, bytes)
            if id not in specials:
                assert tokenizer.id_to_bytes(tokenizer.bytes_to_id(data)) == data
            if tokenizer.n_vocab < 3000:
                token = tokenizer.token(id)
                assert isinstance(token, Token)
                assert (token.id, token.to_bytes()) == (id, data)
                assert token.is_special == (id in specials)

    def test_unknown_ids_are_errors_that_name_the_id(self) -> None:
        tokenizer = self.make()
        for id in (-1, tokenizer.n_vocab, 2**31, 2**32, 2**32 + 1, 2**64, -(2**63)):
            kinds = (UnknownTokenError, ArgumentError)
            assert str(id) in str(expect(kinds, tokenizer.id_to_bytes, id))
            assert str(id) in str(expect(kinds, tokenizer.decode, [id]))
        expect(UnknownTokenError, tokenizer.encode_single_token, "\x00no such token\x00")

    def test_arguments_of_the_wrong_type_are_type_errors(self) -> None:
        tokenizer: Any = self.make()
        no_text: list[Any] = [None, 3, b"bytes", ["list"]]
        for wrong in no_text:
            expect((TypeError, ArgumentError), tokenizer.encode, wrong)
            expect((TypeError, ArgumentError), tokenizer.encode_to_numpy, wrong)
        no_ids: list[Any] = [None, 3, [None], ["a"], [1.5]]
        for wrong in no_ids:
            expect((TypeError, ValueError), tokenizer.decode, wrong)

    def test_streamed_text_is_whole_characters_and_adds_up(self) -> None:
        tokenizer = self.make()
        for text in self.usable(tokenizer):
            ids = tokenizer.encode_ordinary(text)
            decoder = tokenizer.stream_decoder()
            pieces = [decoder.push(id) for id in ids]
            assert "".join(pieces) + decoder.finish() == tokenizer.decode(ids), text
            if self.lossless:
                assert "\ufffd" not in "".join(pieces), text

    def test_offsets_run_through_the_text(self) -> None:
        tokenizer = self.make()
        for text in self.usable(tokenizer):
            try:
                ids, offsets = tokenizer.encode_with_offsets(text)
            except UnsupportedError:
                return
            assert np.asarray(ids).tolist() == tokenizer.encode_ordinary(text)
            pairs = np.asarray(offsets)
            assert pairs.shape == (len(ids), 2)
            assert (pairs[:, 0] <= pairs[:, 1]).all()
            assert (np.diff(pairs[:, 0]) >= 0).all()
            assert not len(pairs) or (pairs.min() >= 0 and pairs.max() <= len(text))
            if self.lossless and len(pairs):
                covered = np.zeros(len(text) + 1, bool)
                for start, end in pairs.tolist():
                    covered[start:end] = True
                assert covered[: len(text)].all(), text

    def test_lone_surrogates_give_ids_or_a_typed_error(self) -> None:
        tokenizer = self.make()
        for text in ("\ud800", "a\udfffb", "\udc80\ud83d"):
            try:
                ids = tokenizer.encode_ordinary(text)
            except (RustLLMError, UnicodeEncodeError):
                continue
            tokenizer.decode(ids)

    def test_it_is_the_same_after_pickling(self) -> None:
        tokenizer = self.make()
        again = pickle.loads(pickle.dumps(tokenizer))
        assert again.n_vocab == tokenizer.n_vocab
        for text in self.usable(tokenizer):
            assert again.encode_ordinary(text) == tokenizer.encode_ordinary(text)

    def test_eight_threads_get_what_one_gets(self) -> None:
        tokenizer = self.make()
        texts = self.usable(tokenizer)
        expected = [tokenizer.encode_ordinary(text) for text in texts]
        wrong: list[str] = []
        barrier = threading.Barrier(8)

        def work(shift: int) -> None:
            barrier.wait()
            for i in range(2 * len(texts)):
                k = (i + shift) % len(texts)
                if tokenizer.encode_ordinary(texts[k]) != expected[k]:
                    wrong.append(texts[k])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_it_works_in_a_forked_child(self) -> None:
        if not hasattr(os, "fork"):
            return
        tokenizer = self.make()
        text = self.usable(tokenizer)[-1]
        expected = tokenizer.encode_batch([text] * 4, 2)
        child = os.fork()
        if child == 0:
            same = False
            try:
                same = tokenizer.encode_batch([text] * 4, 2) == expected
            finally:
                os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
