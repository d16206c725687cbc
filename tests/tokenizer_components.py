"""Components of ``tokenizer.json``, texts that tell them apart, how to compare with the peer."""

import json

import pytest

from rustllm.tokenizers.postprocessors import join_rows

CHARS = "abcdefghiİΣstT123.,!?-'\" \t\n\r\u00a0\u2028éàñüe\u0301ｅﬁ½²中文日語カ゛가각"
CHARS += "😀▁Ġ_$+\u200d\u00ad"


def component_file(normalizer=None, pre_tokenizer=None, decoder=None, post=None, model=None):
    """One id a character, so that every cut and every offset shows."""
    if model is None:
        vocab = {"<unk>": 0}
        for char in CHARS:
            vocab.setdefault(char, len(vocab))
        model = {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>"}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post,
        "decoder": decoder,
        "model": model,
    }


NORMALIZERS = [
    {"type": "NFC"},
    {"type": "NFD"},
    {"type": "NFKC"},
    {"type": "NFKD"},
    {"type": "Lowercase"},
    {"type": "StripAccents"},
    {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Prepend", "prepend": "ab"},
    {"type": "Replace", "pattern": {"String": "st"}, "content": "é"},
    {"type": "Replace", "pattern": {"String": " "}, "content": ""},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": "--"},
    {"type": "Nmt"},
    {"type": "ByteLevel"},
    {
        "type": "Sequence",
        "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}],
    },
    {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    {
        "type": "BertNormalizer",
        "clean_text": False,
        "handle_chinese_chars": False,
        "strip_accents": True,
        "lowercase": False,
    },
]
PRE_TOKENIZERS = [
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    {"type": "Whitespace"},
    {"type": "WhitespaceSplit"},
    {"type": "BertPreTokenizer"},
    {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "Punctuation", "behavior": "Contiguous"},
    {"type": "Digits", "individual_digits": True},
    {"type": "Digits", "individual_digits": False},
    {"type": "CharDelimiterSplit", "delimiter": "s"},
    {"type": "FixedLength", "length": 3},
    *(
        {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
        for pattern in ({"String": " "}, {"Regex": r"[a-e]+|\d"})
        for behavior in (
            "Removed",
            "Isolated",
            "MergedWithPrevious",
            "MergedWithNext",
            "Contiguous",
        )
        for invert in (False, True)
    ),
    {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Punctuation", "behavior": "Isolated"},
        ],
    },
]
COMPONENT_TEXTS = [
    "",
    " ",
    "a  b",
    "the cat's 123 hats!! ",
    "\t tab\nline\r\n",
    "Éé e\u0301 ｅﬁ½²",
    "中文 and 日本語カ゛",
    "가각 İΣ ΣΣ.",
    "▁a ▁ b▁▁",
    "--a--b_c$+1",
    "😀 sad\u200d\u00ad",
]


def peer_of(content):
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer.from_str(json.dumps(content))


DECODERS = [
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    {"type": "WordPiece", "prefix": "##", "cleanup": True},
    {"type": "WordPiece", "prefix": "##", "cleanup": False},
    {"type": "BPEDecoder", "suffix": "</w>"},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
    {"type": "Strip", "content": "a", "start": 2, "stop": 0},
    {"type": "Replace", "pattern": {"String": "b"}, "content": "XX"},
    {"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": True},
    {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    },
]
PIECES = [
    "a",
    "aab",
    "##b",
    "##",
    "▁",
    "▁so",
    "b▁",
    "</w>",
    "x</w>",
    "<0xE6>",
    "<0x97>",
    "<0xA5>",
    "<0xZZ>",
    "Ġ",
    "Ã©",
    " .",
    " n't",
    "do not",
    "|",
    "日",
    "Ġa",
    " ' ",
    " do not",
    "",
]


def assert_same_row(pipeline, peer, text):
    theirs = peer.encode(text)
    rows = [pipeline.row(text)]
    if pipeline.post_processor is not None:
        rows = pipeline.post_processor(rows, True)
    row = join_rows(rows)
    assert row.ids == theirs.ids
    assert row.tokens == theirs.tokens
    assert row.offsets == theirs.offsets
    assert row.words == theirs.word_ids
    assert row.type_ids == theirs.type_ids
    assert row.special == theirs.special_tokens_mask
    assert row.sequences == theirs.sequence_ids
    assert pipeline.ids(text) == peer.encode(text, add_special_tokens=False).ids
