"""Every component that ``tokenizers`` knows is loaded and compared, or refused by name.

What "compared" means is in test_tokenizer_json.py and below; here the lists are held to the members
of the modules, so that a new release with a new component fails until somebody looks at it.
"""

import json
import re
from pathlib import Path

import pytest
import tokenizer_components as components

from rustllm.errors import UnsupportedError
from rustllm.tokenizers import decoders, normalizers, pipeline, postprocessors, pretokenizers
from rustllm.tokenizers.traced_text import TracedText

tokenizers = pytest.importorskip("tokenizers")

GUIDE = Path(__file__).parents[3] / "docs/guides/tokenizers.md"
# module -> its base class, and what is no component
FAMILIES = {
    "normalizers": ("Normalizer", ()),
    "pre_tokenizers": ("PreTokenizer", ()),
    "models": ("Model", ()),
    "processors": ("PostProcessor", ()),
    "decoders": ("Decoder", ("DecodeStream",)),
}
OURS = {
    "normalizers": normalizers._BUILDERS,
    "pre_tokenizers": pretokenizers._BUILDERS,
    "models": pipeline._MODELS,
    "processors": postprocessors._BUILDERS,
    "decoders": decoders._BUILDERS,
}
REFUSED = {"pre_tokenizers": {"UnicodeScripts"}}
# where each family is compared with ``tokenizers``: lists, or files with tests of the names
COMPARED = {
    "normalizers": components.NORMALIZERS,
    "pre_tokenizers": components.PRE_TOKENIZERS,
    "decoders": components.DECODERS,
}


def members(family):
    base, others = FAMILIES[family]
    module = getattr(tokenizers, family)
    kind = getattr(module, base)
    return {
        name
        for name in dir(module)
        if isinstance(getattr(module, name), type)
        and issubclass(getattr(module, name), kind)
        and name not in (base, *others)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_what_tokenizers_knows_is_loaded_or_refused(family):
    assert members(family) == set(OURS[family]) | REFUSED.get(family, set())
    assert not set(OURS[family]) & REFUSED.get(family, set())


@pytest.mark.parametrize("family", COMPARED)
def test_what_is_loaded_is_compared(family):
    text = json.dumps(COMPARED[family])
    compared = set(re.findall(r'"type": "(\w+)"', text))
    if family == "normalizers":
        compared.add("Precompiled")  # test_precompiled_characters_are_those_of_tokenizers
    assert compared == set(OURS[family])


def test_what_is_not_loaded_is_refused_by_name():
    content = components.component_file(pre_tokenizer={"type": "UnicodeScripts"})
    tokenizers.Tokenizer.from_str(json.dumps(content))  # they do know it
    with pytest.raises(UnsupportedError, match="UnicodeScripts") as caught:
        pipeline.Pipeline(content)
    assert caught.value.key == "UnicodeScripts"


PROCESSORS = [
    {"type": "BertProcessing", "sep": ["b", 2], "cls": ["a", 1]},
    {
        "type": "RobertaProcessing",
        "sep": ["b", 2],
        "cls": ["a", 1],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
    {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "a", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "a", "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"a": {"id": "a", "ids": [1], "tokens": ["a"]}},
    },
]
PROCESSORS.append({"type": "Sequence", "processors": [PROCESSORS[2], PROCESSORS[3]]})


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda value: value["type"])
def test_each_post_processor_adds_what_tokenizers_adds(processor):
    content = components.component_file(post=processor)
    ours, peer = pipeline.Pipeline(content), components.peer_of(content)
    for text in components.COMPONENT_TEXTS:
        components.assert_same_row(ours, peer, text)


def test_every_post_processor_is_compared():
    names = set(re.findall(r'"type": "(\w+)"', json.dumps(PROCESSORS)))
    assert names == set(OURS["processors"])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_guide_lists_every_component(family):
    text = GUIDE.read_text(encoding="utf-8")
    missing = [name for name in sorted(members(family)) if f"`{name}`" not in text]
    assert not missing


# -- every code point -----------------------------------------------------------------------------

BLOCK = 4096
POINTS = [
    [chr(code) for code in range(start, start + BLOCK) if not 0xD800 <= code < 0xE000]
    for start in range(0, 0x110000, BLOCK)
    # of the planes that hold nothing yet, one block each
    if start < 0x33000 or start % 0x10000 == 0 or start == 0x10F000
]
BERT = {
    "type": "BertNormalizer",
    "clean_text": False,
    "handle_chinese_chars": False,
    "strip_accents": False,
    "lowercase": False,
}
BY_CHARACTER = [
    *({**BERT, name: True} for name in list(BERT)[1:]),
    *(
        {"type": name}
        for name in ("StripAccents", "Lowercase", "Nmt", "NFC", "NFD", "NFKC", "NFKD")
    ),
]


@pytest.mark.parametrize("normalizer", BY_CHARACTER, ids=str)
def test_every_code_point_is_normalized_as_tokenizers_does(normalizer):
    normalize = normalizers.build_normalizer(normalizer)
    peer = components.peer_of(components.component_file(normalizer=normalizer)).normalizer
    for block in POINTS:
        text = " ".join([f"a{char}b" for char in block])
        ours = TracedText.of(text, traced=False)
        normalize(ours)
        assert ours.text.split(" ") == peer.normalize_str(text).split(" ")


@pytest.mark.parametrize(
    "cut",
    [
        {"type": "BertPreTokenizer"},
        {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Digits", "individual_digits": True},
        {"type": "Whitespace"},
        {"type": "WhitespaceSplit"},
    ],
    ids=str,
)
def test_every_code_point_is_cut_as_tokenizers_does(cut):
    build = pretokenizers.build_pre_tokenizer(cut)
    peer = components.peer_of(components.component_file(pre_tokenizer=cut)).pre_tokenizer
    for block in POINTS:
        text = "".join([f"a{char}b" for char in block])
        ours = [piece.text for piece in build([TracedText.of(text, traced=False)])]
        assert ours == [piece for piece, _ in peer.pre_tokenize_str(text)]
