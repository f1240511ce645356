"""HFTokenizer: a tokenizer.json of the Hugging Face `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from megatron.neox.errors import VocabularyError
from megatron.neox.plugins import tokenizers as registry
from megatron.neox.tokenizers import vocabulary_files as files
from megatron.neox.tokenizers.byte_level import (
    CHARACTER_OF_BYTE,
    ByteTable,
    encode_any_bytes,
    encode_texts,
    piece_bytes,
)
from tokenizers import Tokenizer as Engine

_NAME = "HFTokenizer"
_END_OF_DOCUMENT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")


@registry.register(_NAME)
class HFTokenizer:
    """A tokenizer.json, run by the library that wrote it.

    Special tokens written out in a text are plain text. Lossless on any bytes where it is byte-level with all
    256 bytes and has no normalizer; other kinds (SentencePiece-like) encode UTF-8 only.

    Args:
        vocab_file: tokenizer.json.

    Raises:
        VocabularyError: the file is absent, damaged, or names no end-of-document token, nor does
            tokenizer_config.json beside it.
    """

    def __init__(self, *, vocab_file: str | None = None) -> None:
        data = files.read_bytes(vocab_file, key="vocab_file", tokenizer=_NAME)
        self._path = vocab_file
        self.engine = _engine(data, vocab_file)
        self.engine.encode_special_tokens = True
        self.engine.no_truncation()
        self.engine.no_padding()
        vocabulary = self.engine.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        self.eod = _end_of_document(vocabulary, vocab_file)
        self._byte_table, self._id_of_byte = self._byte_level(files.parse_json(data, vocab_file), vocabulary)
        self._fingerprint = {
            "type": _NAME,
            "vocab_sha256": files.digest(data),
            "vocab_size": self.vocab_size,
        }

    def _byte_level(
        self, settings: Any, vocabulary: dict[str, int]
    ) -> tuple[ByteTable | None, list[int] | None]:
        """Bytes of ids, and ids of bytes, as far as the file has a byte level."""
        decoder = settings.get("decoder") or {}
        kinds = [decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", []))]
        if "ByteLevel" not in kinds:
            return None, None
        added = self.engine.get_added_tokens_decoder()
        table = {number: piece_bytes(piece) for piece, number in vocabulary.items()}
        table |= {number: token.content.encode() for number, token in added.items()}
        if not all(character in vocabulary for character in CHARACTER_OF_BYTE):
            return ByteTable(table), None
        return ByteTable(table), [vocabulary[character] for character in CHARACTER_OF_BYTE]

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return encode_texts(self.engine, texts, self.encode_bytes)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any byte string.

        Raises:
            VocabularyError: the bytes are not UTF-8 and the vocabulary does not have all 256 bytes.
        """
        if self._id_of_byte is not None:
            return encode_any_bytes(data, self.encode, self._id_of_byte)
        try:
            return self.encode(data.decode())
        except UnicodeDecodeError as error:
            raise VocabularyError(
                f"{self._path} has no token for every byte, so it cannot encode what is not UTF-8 ({error}); "
                "use a byte-level vocabulary (tools/train_tokenizer.py)"
            ) from error

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids."""
        if self._byte_table is not None:
            return self._byte_table.decode(ids)
        return self.engine.decode([int(token) for token in ids], skip_special_tokens=False)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of ids."""
        if self._byte_table is not None:
            return self._byte_table.decode_bytes(ids)
        return self.decode(ids).encode()

    def fingerprint(self) -> dict[str, Any]:
        """Type, hash of the file, size."""
        return dict(self._fingerprint)


def _engine(data: bytes, path: str | None) -> Engine:
    try:
        return Engine.from_buffer(data)
    except Exception as error:  # the library raises Exception itself
        raise VocabularyError(
            f"{path} is not a tokenizer.json: {error}; "
            "vocab.json and merges.txt go with tokenizer_type GPT2BPETokenizer"
        ) from error


def _end_of_document(vocabulary: dict[str, int], path: str | None) -> int:
    for piece in (*_END_OF_DOCUMENT, _named_end(path)):
        if piece in vocabulary:
            return vocabulary[piece]
    raise VocabularyError(
        f"{path} has none of the tokens that end documents: {', '.join(_END_OF_DOCUMENT)}; "
        "and no tokenizer_config.json beside it names its eos_token"
    )


def _named_end(path: str | None) -> str:
    """What a tokenizer_config.json beside the file calls the end, "" where there is none."""
    try:
        settings = json.loads((Path(path or "").parent / "tokenizer_config.json").read_text(encoding="utf-8"))
        token = settings.get("eos_token")
        return str(token["content"] if isinstance(token, dict) else token)
    except (OSError, ValueError, AttributeError, KeyError):
        return ""
