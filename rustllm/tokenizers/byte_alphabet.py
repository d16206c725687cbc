"""The 256 printable characters that byte-level vocabularies write bytes with.

GPT-2's table: a byte that Latin-1 prints is that character, the others are U+0100 and up in order.
"""

from __future__ import annotations

from rustllm.errors import FileFormatError

__all__ = ["BYTE_TO_CHAR", "CHAR_TO_BYTE", "bytes_to_text", "text_to_bytes"]

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PRINTABLE)]

BYTE_TO_CHAR: dict[int, str] = {byte: chr(byte) for byte in _PRINTABLE}
BYTE_TO_CHAR |= {byte: chr(0x100 + i) for i, byte in enumerate(_OTHERS)}
CHAR_TO_BYTE: dict[str, int] = {char: byte for byte, char in BYTE_TO_CHAR.items()}


def bytes_to_text(data: bytes) -> str:
    """Write `data` in the byte alphabet.

    Examples
    --------
    >>> bytes_to_text(" é".encode())
    'ĠÃ©'
    """
    return data.decode("latin-1").translate(BYTE_TO_CHAR)


def text_to_bytes(text: str) -> bytes:
    """Read `text` written in the byte alphabet.

    Raises
    ------
    FileFormatError
        A character is not of the alphabet.

    Examples
    --------
    >>> text_to_bytes("ĠÃ©").decode()
    ' é'
    """
    try:
        return bytes([CHAR_TO_BYTE[char] for char in text])
    except KeyError as error:
        raise FileFormatError(
            f"{error.args[0]!r} is not one of the 256 byte-level characters", key=text
        ) from None
