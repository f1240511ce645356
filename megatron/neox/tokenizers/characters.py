"""CharLevelTokenizer: one token a byte, no vocabulary files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megatron.neox.plugins import tokenizers as registry
from megatron.neox.tokenizers.byte_level import ByteTable, surrogates_to_bytes

_VOCAB_SIZE = 512  # GPT-NeoX's size; ids from 256 on mean nothing


@registry.register("CharLevelTokenizer")
class CharLevelTokenizer(ByteTable):
    """UTF-8 bytes as ids 0 to 255; end of document is 0, the NUL byte, as in GPT-NeoX."""

    vocab_size = _VOCAB_SIZE
    eod = 0

    def __init__(self) -> None:
        super().__init__({byte: bytes([byte]) for byte in range(256)})

    def encode(self, text: str) -> list[int]:
        """The text's UTF-8 bytes."""
        try:
            return list(text.encode())
        except UnicodeEncodeError:
            return list(surrogates_to_bytes(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The bytes of each text."""
        return [self.encode(text) for text in texts]

    def encode_bytes(self, data: bytes) -> list[int]:
        """The bytes themselves."""
        return list(data)

    def fingerprint(self) -> dict[str, Any]:
        """Its type and size: nothing else can differ."""
        return {"type": "CharLevelTokenizer", "vocab_size": _VOCAB_SIZE}
