"""Write a byte-level BPE vocabulary in each of the formats that hold one, or say why it cannot be.

A file is written only if reading it gives the same ids for every text.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, NoReturn

from rustllm._core.split import EXPRESSIONS, pattern_id, pretoken_ends
from rustllm.errors import UnsupportedError
from rustllm.serialize.atomic import write_whole
from rustllm.tokenizers.byte_alphabet import CHAR_TO_BYTE, bytes_to_text
from rustllm.tokenizers.byte_bpe import ByteBpe
from rustllm.tokenizers.byte_level_json import byte_level, byte_level_json, splits_of

__all__ = [
    "save_gguf",
    "save_tekken",
    "save_tiktoken",
    "save_tokenizer_json",
    "save_vocab_merges",
    "tokenizer_json_of",
]


def _refuse(bpe: ByteBpe, format: str, reason: str) -> NoReturn:
    raise UnsupportedError(
        f"{bpe.name} cannot be written as {format} without changing ids: {reason}",
        key=format,
        hint="tokenizer.json holds every byte-level vocabulary",
    )


def _ranks(bpe: ByteBpe, format: str) -> list[int]:
    """Ids by rank, for a format in which ranks say it all."""
    ranks = bpe.as_ranks()
    if ranks is None:
        _refuse(bpe, format, "it merges listed pairs only, and ranks merge any that spells a token")
    if not bpe.whole:
        _refuse(bpe, format, "it merges pretokens that are tokens, which are kept whole there")
    if bpe.added:
        _refuse(bpe, format, "it finds added tokens in every text")
    return ranks


# -- tokenizer.json -----------------------------------------------------------------------------


def save_tokenizer_json(bpe: ByteBpe, path: Path) -> None:
    """Write a ``tokenizer.json``."""
    write_whole(path, json.dumps(tokenizer_json_of(bpe), ensure_ascii=False).encode())


def tokenizer_json_of(bpe: ByteBpe) -> dict[str, Any]:
    """The content of a ``tokenizer.json``.

    Ranks become merges: every way to put a token together from two others, by rank.
    """
    format = "tokenizer.json"
    vocab = {bytes_to_text(token): id for token, id in bpe.ordinary.items()}
    named = {**bpe.added, **bpe.special}
    in_line = sorted(named.values()) == list(range(len(vocab), len(vocab) + len(named)))
    if not in_line or max(vocab.values(), default=-1) >= len(vocab):
        # ids that do not follow the vocabulary's have to stand in it
        for text, id in named.items():
            if vocab.setdefault(text, id) != id:
                _refuse(bpe, format, f"{text!r} is a special token and an ordinary one")
            if bpe.whole and _is_pretoken(bpe, text):
                _refuse(bpe, format, f"{text!r} would be found in text as well")
    text_of = {id: text for text, id in reversed(vocab.items())}
    splits = splits_of(_expressions(bpe))
    return byte_level_json(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [*splits, byte_level(False)]},
        added=dict(sorted(named.items(), key=lambda item: item[1])),
        special=bpe.special,
        vocab=vocab,
        merges=[[text_of[left], text_of[right]] for left, right, _ in bpe.explicit_merges()],
        whole=bpe.whole,
    )


def _expressions(bpe: ByteBpe) -> tuple[str, ...]:
    return () if bpe.pattern is None else EXPRESSIONS.get(bpe.pattern, (bpe.pattern,))


def _is_pretoken(bpe: ByteBpe, text: str) -> bool:
    """Whether `text` may be a pretoken; so it is taken to be where that is hard to tell."""
    if bpe.pattern not in EXPRESSIONS:
        return True
    if any(char not in CHAR_TO_BYTE for char in text):
        return False
    data = bytes(CHAR_TO_BYTE[char] for char in text)
    return len(pretoken_ends(pattern_id(bpe.pattern), data)) == 1


# -- ranks --------------------------------------------------------------------------------------


def save_tiktoken(bpe: ByteBpe, path: Path) -> None:
    """Write tiktoken's ranks, which hold neither special tokens nor a pattern."""
    from rustllm.tokenizers.tiktoken_format import write_ranks

    ranks = _ranks(bpe, "tiktoken")
    if any(a >= b for a, b in zip(ranks, ranks[1:])):
        _refuse(bpe, "tiktoken", "ranks are ids there, and its ids are in another order")
    write_whole(path, write_ranks({bpe.tokens[id]: id for id in ranks}))


def save_tekken(bpe: ByteBpe, path: Path) -> None:
    """Write a ``tekken.json``, in which special tokens have the first ids."""
    ranks = _ranks(bpe, "tekken")
    n_special = len(bpe.tokens) - len(ranks)
    if ranks != list(range(n_special, len(bpe.tokens))):
        _refuse(bpe, "tekken", "special tokens come first there, and ranks follow without a gap")
    expressions = _expressions(bpe)
    if len(expressions) != 1:
        _refuse(bpe, "tekken", "text is cut by one expression there")
    text_of = {id: text for text, id in bpe.special.items()}
    if sorted(text_of) != list(range(n_special)):
        _refuse(bpe, "tekken", "an id below the ranks is no special token")
    content = {
        "config": {
            "pattern": expressions[0],
            "num_vocab_tokens": len(ranks),
            "default_vocab_size": len(bpe.tokens),
            "default_num_special_tokens": n_special,
            "version": "v3",
        },
        "vocab": [
            {
                "rank": rank,
                "token_bytes": base64.b64encode(bpe.tokens[id]).decode(),
                "token_str": _text_or_none(bpe.tokens[id]),
            }
            for rank, id in enumerate(ranks)
        ],
        "special_tokens": [
            {"rank": id, "token_str": text_of[id], "is_control": True} for id in range(n_special)
        ],
    }
    write_whole(path, json.dumps(content, ensure_ascii=False).encode())


def _text_or_none(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


# -- merges -------------------------------------------------------------------------------------


def save_vocab_merges(bpe: ByteBpe, folder: Path) -> None:
    """Write ``vocab.json`` and ``merges.txt`` into `folder`."""
    format = "vocab.json and merges.txt"
    if bpe.pattern != "gpt2" or bpe.whole:
        _refuse(bpe, format, "text is cut as GPT-2 does there, and every pretoken is merged")
    if bpe.added:
        _refuse(bpe, format, "it finds added tokens in every text")
    vocab = {bytes_to_text(token): id for token, id in bpe.ordinary.items()}
    merges = bpe.explicit_merges()
    made = {made for _, _, made in merges}
    for text, id in bpe.special.items():
        if id not in made and vocab.setdefault(text, id) != id:
            _refuse(bpe, format, f"{text!r} is a special token and an ordinary one")
    if made & set(bpe.special.values()):
        _refuse(bpe, format, "a special token is the result of a merge")
    stray = [token for token, id in bpe.ordinary.items() if len(token) > 1 and id not in made]
    if stray:
        _refuse(bpe, format, f"no merge makes {stray[0]!r}, which would be taken for special")
    text_of = {id: text for text, id in vocab.items()}
    lines = [f"{text_of[left]} {text_of[right]}\n" for left, right, _ in merges]
    ordered = dict(sorted(vocab.items(), key=lambda item: item[1]))
    write_whole(folder / "vocab.json", json.dumps(ordered, ensure_ascii=False).encode())
    write_whole(folder / "merges.txt", ("#version: 0.2\n" + "".join(lines)).encode())


def _merges_alone_do(bpe: ByteBpe) -> bool:
    """Whether merging gives every pretoken that is a token, so that none has to be kept whole."""
    import numpy as np

    from rustllm._core.encoder import Encoder

    if bpe.ranks is None or bpe.pattern not in EXPRESSIONS:
        return False
    ends = np.zeros(len(bpe.tokens) + 1, np.uint32)
    np.cumsum([len(token) for token in bpe.tokens], out=ends[1:])
    encoder = Encoder(
        b"".join(bpe.tokens),
        ends,
        order=np.array(bpe.ranks, np.uint32),
        pattern=pattern_id(bpe.pattern),
    )
    # what is no text is no pretoken of a text, and what is cut is no pretoken
    texts = [text for text in map(_text_or_none, bpe.ordinary) if text is not None]
    counts = np.asarray(encoder.count_batch(texts)).tolist()
    return not any(n > 1 and _is_pretoken_text(bpe, text) for n, text in zip(counts, texts))


def _is_pretoken_text(bpe: ByteBpe, text: str) -> bool:
    assert bpe.pattern is not None
    return len(pretoken_ends(pattern_id(bpe.pattern), text.encode())) == 1


def save_gguf(bpe: ByteBpe, path: Path) -> None:
    """Write a GGUF file with no tensors, only the vocabulary."""
    from rustllm.loaders.gguf_writer import Typed, write_gguf
    from rustllm.tokenizers.gguf import PATTERNS
    from rustllm.tokenizers.sentencepiece_model import CONTROL, NORMAL, UNUSED, USER_DEFINED

    names: dict[tuple[str | None, bool], str] = {}
    for name, what in PATTERNS.items():
        names.setdefault(what, name)
    pre = names.get((bpe.pattern, bpe.whole))
    if pre is None and bpe.whole and (bpe.pattern, False) in names and _merges_alone_do(bpe):
        pre = names[bpe.pattern, False]
    if pre is None:
        kept = "kept whole" if bpe.whole else "merged"
        _refuse(
            bpe,
            "GGUF",
            f"it has no name for cutting text by {bpe.pattern!r} with pretokens that are tokens "
            f"{kept}",
        )
    n = len(bpe.tokens)
    texts = [f"[UNUSED_{id}]" for id in range(n)]
    kinds = [UNUSED] * n
    for token, id in bpe.ordinary.items():
        texts[id], kinds[id] = bytes_to_text(token), NORMAL
    for tokens, kind in ((bpe.added, USER_DEFINED), (bpe.special, CONTROL)):
        for text, id in tokens.items():
            if kinds[id] == NORMAL:
                _refuse(bpe, "GGUF", f"{text!r} is an ordinary token too")
            texts[id], kinds[id] = text, kind
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": bpe.name,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": Typed("[i32]", kinds),
        "tokenizer.ggml.merges": Typed(
            "[str]", [f"{texts[left]} {texts[right]}" for left, right, _ in bpe.explicit_merges()]
        ),
    }
    for key, value in (("bos", bpe.bos_id), ("eos", bpe.eos_id)):
        if value is not None:
            metadata[f"tokenizer.ggml.{key}_token_id"] = Typed("u32", value)
    write_gguf(path, metadata, {})
