"""Decoders of ``tokenizer.json``: tokens back to text.

Each is a function from the texts of tokens to texts, which are joined in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rustllm.tokenizers.byte_alphabet import CHAR_TO_BYTE
from rustllm.tokenizers.components import Fields, build_component
from rustllm.tokenizers.patterns import pattern_finder

__all__ = ["Decoder", "build_decoder"]

Decoder = Callable[[list[str]], list[str]]


def build_decoder(value: Any) -> Decoder | None:
    """Build the decoder that `value`, parsed JSON, describes; None for null."""
    return None if value is None else build_component(value, "decoder", _BUILDERS)


def _sequence(fields: Fields) -> Decoder:
    parts = [build_component(part, "decoder", _BUILDERS) for part in fields.take("decoders", list)]

    def decode(tokens: list[str]) -> list[str]:
        for part in parts:
            tokens = part(tokens)
        return tokens

    return decode


def _byte_level(fields: Fields) -> Decoder:
    for name in ("add_prefix_space", "trim_offsets", "use_regex"):
        fields.take(name, bool, True)  # of no use here

    def decode(tokens: list[str]) -> list[str]:
        data = bytearray()
        for token in tokens:
            try:
                data += bytes([CHAR_TO_BYTE[char] for char in token])
            except KeyError:
                data += token.encode("utf-8", "surrogatepass")
        return [data.decode("utf-8", "replace")]

    return decode


def _replace(fields: Fields) -> Decoder:
    find = pattern_finder(fields.take("pattern", (str, dict)))
    content: str = fields.take("content", str)

    def replace(token: str) -> str:
        parts: list[str] = []
        last = 0
        for start, end in find(token):
            if end > start:
                parts += (token[last:start], content)
                last = end
        return "".join([*parts, token[last:]])

    return lambda tokens: [replace(token) for token in tokens]


def _byte_of(token: str) -> int | None:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return int(token[3:5], 16)
        except ValueError:
            return None
    return None


def byte_fallback(tokens: list[str]) -> list[str]:
    """Runs of ``<0x..>`` as the text they spell, or a replacement character for each byte."""
    out: list[str] = []
    run = bytearray()

    def flush() -> None:
        if run:
            try:
                out.append(run.decode("utf-8"))
            except UnicodeDecodeError:
                out.extend("\ufffd" * len(run))
            run.clear()

    for token in tokens:
        byte = _byte_of(token)
        if byte is None:
            flush()
            out.append(token)
        else:
            run.append(byte)
    flush()
    return out


def _strip(fields: Fields) -> Decoder:
    content = fields.char("content")
    start: int = fields.take("start", int)
    stop: int = fields.take("stop", int)

    def strip(token: str) -> str:
        first, last = 0, len(token)
        while first < min(start, len(token)) and token[first] == content:
            first += 1
        while len(token) - last < min(stop, len(token)) and token[last - 1] == content:
            last -= 1
        return token[first : max(first, last)]

    return lambda tokens: [strip(token) for token in tokens]


def _metaspace(fields: Fields) -> Decoder:
    mark = fields.char("replacement", "▁")
    old: bool | None = fields.take("add_prefix_space", bool, None)
    scheme: str = fields.take("prepend_scheme", str, "never" if old is False else "always")
    fields.take("split", bool, True)
    fields.take("str_rep", str, None)

    def decode(tokens: list[str]) -> list[str]:
        out = []
        for i, token in enumerate(tokens):
            if i == 0 and scheme != "never":
                # the marks that were put in front of the text go, all of them
                out.append("".join(["" if char == mark else char for char in token]))
            else:
                out.append(token.replace(mark, " "))
        return out

    return decode


_CLEANUP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def _clean(text: str) -> str:
    for spaced, tight in _CLEANUP:
        text = text.replace(spaced, tight)
    return text


def _wordpiece(fields: Fields) -> Decoder:
    prefix: str = fields.take("prefix", str, "##")
    cleanup: bool = fields.take("cleanup", bool, True)

    def decode(tokens: list[str]) -> list[str]:
        out = []
        for i, token in enumerate(tokens):
            if i:
                token = token.replace(prefix, "", 1) if token.startswith(prefix) else f" {token}"
            out.append(_clean(token) if cleanup else token)
        return out

    return decode


def _bpe(fields: Fields) -> Decoder:
    suffix: str = fields.take("suffix", str, "</w>")

    def decode(tokens: list[str]) -> list[str]:
        last = len(tokens) - 1
        return [token.replace(suffix, " " if i < last else "") for i, token in enumerate(tokens)]

    return decode


def _ctc(fields: Fields) -> Decoder:
    pad: str = fields.take("pad_token", str, "<pad>")
    delimiter: str = fields.take("word_delimiter_token", str, "|")
    cleanup: bool = fields.take("cleanup", bool, True)

    def decode(tokens: list[str]) -> list[str]:
        out = []
        for i, token in enumerate(tokens):
            if i and token == tokens[i - 1]:
                continue
            token = token.replace(pad, "")
            if cleanup:
                token = _clean(token).replace(delimiter, " ")
            if token:
                out.append(token)
        return out

    return decode


_BUILDERS: dict[str, Callable[[Fields], Decoder]] = {
    "BPEDecoder": _bpe,
    "ByteFallback": lambda fields: byte_fallback,
    "ByteLevel": _byte_level,
    "CTC": _ctc,
    "Fuse": lambda fields: lambda tokens: ["".join(tokens)],
    "Metaspace": _metaspace,
    "Replace": _replace,
    "Sequence": _sequence,
    "Strip": _strip,
    "WordPiece": _wordpiece,
}
