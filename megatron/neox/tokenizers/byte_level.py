"""The byte level of GPT-2's vocabularies: each of 256 bytes is written as one printable character."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

# An id that means nothing (a padding row of the embedding) reads as U+FFFD, never as an error.
NO_TOKEN = "\N{REPLACEMENT CHARACTER}".encode()

# How Python writes bytes 0x80 to 0xFF that are no UTF-8 when it decodes with "surrogateescape".
_ESCAPED = re.compile("([\udc80-\udcff]+)")
_ESCAPE_OFFSET = 0xDC00


def _alphabet() -> list[str]:
    """Character of each byte: itself where it prints, else the next of U+0100 onwards (GPT-2, encoder.py)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    shifted = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


CHARACTER_OF_BYTE = _alphabet()
BYTE_OF_CHARACTER = {character: byte for byte, character in enumerate(CHARACTER_OF_BYTE)}


def piece_bytes(piece: str) -> bytes:
    """Bytes that a vocabulary entry stands for; an entry outside the alphabet stands for its own UTF-8."""
    try:
        return bytes(BYTE_OF_CHARACTER[character] for character in piece)
    except KeyError:
        return piece.encode()


class ByteTable:
    """Ids to bytes, by look-up."""

    def __init__(self, bytes_of_id: Mapping[int, bytes]) -> None:
        self._bytes_of_id = bytes_of_id

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of ids, in order."""
        look_up = self._bytes_of_id.get
        return b"".join(look_up(int(token), NO_TOKEN) for token in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The same as text; what is not UTF-8 becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")


def encode_any_bytes(data: bytes, encode: Callable[[str], list[int]], id_of_byte: Sequence[int]) -> list[int]:
    """Ids of any byte string: UTF-8 runs through `encode`, every other byte as a token of its own."""
    try:
        return encode(data.decode())
    except UnicodeDecodeError:
        pass
    ids: list[int] = []
    for place, run in enumerate(_ESCAPED.split(data.decode("utf-8", "surrogateescape"))):
        if place % 2:
            ids += [id_of_byte[ord(character) - _ESCAPE_OFFSET] for character in run]
        elif run:
            ids += encode(run)
    return ids


def encode_texts(
    engine: Engine, texts: Sequence[str], encode_bytes: Callable[[bytes], list[int]]
) -> list[list[int]]:
    """Ids of each text, special tokens neither added nor read.

    Args:
        encode_bytes: takes over where a text holds a lone surrogate, which the engine refuses.
    """
    try:
        return [encoding.ids for encoding in engine.encode_batch_fast(texts, add_special_tokens=False)]
    except (TypeError, UnicodeEncodeError):
        return [encode_bytes(surrogates_to_bytes(text)) for text in texts]


def surrogates_to_bytes(text: str) -> bytes:
    """Bytes of a text with lone surrogates: an escaped byte is itself, another surrogate three bytes."""
    return b"".join(
        bytes(ord(character) - _ESCAPE_OFFSET for character in run)
        if place % 2
        else run.encode("utf-8", "surrogatepass")
        for place, run in enumerate(_ESCAPED.split(text))
    )
