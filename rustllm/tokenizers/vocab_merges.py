"""Read ``vocab.json`` beside ``merges.txt``, GPT-2's format: byte-level BPE in two files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rustllm.errors import FileAccessError, FileFormatError, FileMissingError, UnsupportedError
from rustllm.tokenizers.byte_alphabet import CHAR_TO_BYTE

__all__ = ["content_of_vocab_and_merges"]


def content_of_vocab_and_merges(vocab: dict[str, int], merges_path: Path) -> dict[str, Any]:
    """The ``tokenizer.json`` that the two files come to.

    They say neither how text is split nor what is special. As in GPT-2 text is split by its own
    pattern; a token that no merge makes and that is no single byte can only be a special one.

    Raises
    ------
    FileMissingError, FileAccessError
        There is no ``merges.txt``, or it cannot be read.
    FileFormatError
        A line of it is no merge.
    UnsupportedError
        The vocabulary is not byte-level.
    """
    try:
        lines = merges_path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise FileMissingError(
            "a vocab.json needs its merges.txt beside it", path=str(merges_path)
        ) from error
    except OSError as error:
        raise FileAccessError(str(error), path=str(merges_path), errno=error.errno) from error
    except UnicodeDecodeError as error:
        raise FileFormatError(
            "this is not UTF-8 text", path=str(merges_path), offset=error.start
        ) from error
    merges = []
    made = set(CHAR_TO_BYTE)
    for number, line in enumerate(lines, 1):
        if (number == 1 and line.startswith("#version")) or not line.strip():
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2 or not all(pair):
            raise FileFormatError(f"{line!r} is no merge", path=str(merges_path), line=number)
        merges.append(pair)
        made.add(pair[0] + pair[1])
    lacking = next((char for char in CHAR_TO_BYTE if char not in vocab), None)
    if lacking is not None or any(text.endswith("</w>") for text in vocab):
        raise UnsupportedError(
            "this vocab.json is not byte-level",
            key="vocab",
            hint="use the tokenizer.json of the model",
        )
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": id,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for text, id in vocab.items()
            if text not in made and text
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
