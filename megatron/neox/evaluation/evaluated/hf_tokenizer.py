"""transformers' tokenizers behind our interface."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from megatron.neox.errors import VocabularyError

log = logging.getLogger(__name__)

# Stands before what is decoded: SentencePiece's decoders drop a space at the beginning of a text, and what a model
# says begins in the midst of one.
_ANCHOR = "x"


class HuggingFaceTokenizer:
    """A tokenizer of transformers.

    Special tokens written out in a text are plain text, and none is added.

    Args:
        tokenizer: as AutoTokenizer gives it.
        num_rows: rows of the model's embedding.
        source: where it is from, for messages.

    Attributes:
        vocab_size: ids that mean something and that the model has rows for.
        eod: id that ends a document: its eos, or bos where it has no eos.
        start: id that stands before a document: its bos, or eos where it has no bos.
        start_name: what that is, in words.
    """

    def __init__(self, tokenizer: Any, *, num_rows: int, source: str) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self.vocab_size = min(len(tokenizer), num_rows)
        marks: list[Any] = [tokenizer.bos_token_id, tokenizer.eos_token_id]
        given: list[int] = [mark for mark in marks if mark is not None]
        if not given:
            raise VocabularyError(
                f"the tokenizer of {source} names neither bos_token nor eos_token; one of them must stand before "
                "a document (tokenizer_config.json)"
            )
        self.start, self.eod = given[0], given[-1]
        mark = "eos" if marks[0] is None else "bos"
        self.start_name = f"the tokenizer's {mark}, {tokenizer.convert_ids_to_tokens(self.start)},"
        if max(self.eod, self.start) >= num_rows:
            raise VocabularyError(
                f"the tokenizer of {source} ends documents with the id {max(self.eod, self.start)}, and its model has "
                f"{num_rows} rows; name the tokenizer that belongs to it (evaluated_model.tokenizer)"
            )
        self._anchor = self.encode(_ANCHOR)
        self._anchor_text = self._text(self._anchor)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text.

        Raises:
            VocabularyError: one of them is beyond the rows of the model.
        """
        if not texts:
            return []
        encoded = self._tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, truncation=False, padding=False,
            return_attention_mask=False, verbose=False,
        )["input_ids"]  # fmt: skip
        largest = max((max(ids) for ids in encoded if ids), default=0)
        if largest >= self.vocab_size:
            raise VocabularyError(
                f"the tokenizer of {self._source} gives the id {largest}, and its model has {self.vocab_size} rows; "
                "name the tokenizer that belongs to it (evaluated_model.tokenizer)"
            )
        return encoded

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of UTF-8.

        Raises:
            VocabularyError: the bytes are none.
        """
        try:
            return self.encode(data.decode())
        except UnicodeDecodeError as error:
            raise VocabularyError(f"the tokenizer of {self._source} encodes UTF-8 only ({error})") from error

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids in the midst of a text: a space at its beginning stays."""
        return self._text([*self._anchor, *map(int, ids)])[len(self._anchor_text) :]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The same in UTF-8."""
        return self.decode(ids).encode()

    def fingerprint(self) -> dict[str, Any]:
        """Its class, a hash of its vocabulary, and the token that stands before documents."""
        vocabulary = json.dumps(sorted(self._tokenizer.get_vocab().items()))
        return {
            "type": type(self._tokenizer).__name__,
            "vocab_sha256": hashlib.sha256(vocabulary.encode()).hexdigest(),
            "vocab_size": self.vocab_size,
            "document_start": self._tokenizer.convert_ids_to_tokens(self.start),
            "document_end": self._tokenizer.convert_ids_to_tokens(self.eod),
        }

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
