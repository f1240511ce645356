"""What every tokenizer does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """Text to ids and back; the ids that carry meaning are 0 to vocab_size - 1."""

    @property
    def vocab_size(self) -> int:
        """Number of real ids, before padding for the model."""
        ...

    @property
    def eod(self) -> int:
        """Id that ends a document."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens written out in it are plain text."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as `encode` gives them, faster."""
        ...

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of a byte string that need not be UTF-8; on UTF-8 the same as `encode`."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; bytes that are not UTF-8, and ids that mean nothing, become U+FFFD."""
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of ids; an id that means nothing becomes U+FFFD in UTF-8."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What decides the ids: type, hashes of the files, the readings that matter."""
        ...
