"""GPT2BPETokenizer: GPT-2's byte-level BPE, with ids equal to GPT-NeoX's down to its oddities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

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
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

END_OF_DOCUMENT = "<|endoftext|>"

MissingBytes = Literal["eod", "extend"]

_NAME = "GPT2BPETokenizer"


@registry.register(_NAME)
class GPT2BPETokenizer(ByteTable):
    """Byte-level BPE of vocab.json and merges.txt, as GPT-NeoX reads them (PolyCoder's tokenizer).

    GPT-NeoX leaves out the first line of merges.txt, header or rule, and gives a byte that the vocabulary
    lacks (in PolyCoder's: CR and 13 that UTF-8 never uses) the id 0. Both are the default, because the
    released models were trained on such ids; `merges_header="auto"` and `missing_bytes="extend"` turn
    them off. Lossless on any bytes where the vocabulary has all 256 or is extended by those it lacks.

    Args:
        vocab_file: vocab.json.
        merge_file: merges.txt.
        merges_header: `drop_first_line`, or `auto` to drop only a `#version` line.
        missing_bytes: `eod` for id 0, or `extend` for ids of their own behind the vocabulary.

    Raises:
        VocabularyError: a file is absent or damaged, or the two do not belong together.
    """

    def __init__(
        self,
        *,
        vocab_file: str | None = None,
        merge_file: str | None = None,
        merges_header: files.MergesHeader = "drop_first_line",
        missing_bytes: MissingBytes = "eod",
    ) -> None:
        vocabulary_data = files.read_bytes(vocab_file, key="vocab_file", tokenizer=_NAME)
        merges_data = files.read_bytes(merge_file, key="merge_file", tokenizer=_NAME)
        vocabulary = files.parse_vocabulary(vocabulary_data, vocab_file)
        merges = files.parse_merges(merges_data, merge_file, header=merges_header)
        files.check_rules(merges.rules, vocabulary, vocab_file=vocab_file, merge_file=merge_file)
        self.eod = _end_of_document(vocabulary, vocab_file)
        missing = [character for character in CHARACTER_OF_BYTE if character not in vocabulary]
        self.num_missing_bytes = 0 if missing_bytes == "extend" else len(missing)
        if missing_bytes == "extend":
            first = max(vocabulary.values()) + 1
            vocabulary |= {character: first + place for place, character in enumerate(missing)}
        self.vocab_size = max(vocabulary.values()) + 1
        super().__init__({number: piece_bytes(piece) for piece, number in vocabulary.items()})
        piece_of_id_zero = next(
            (piece for piece, number in vocabulary.items() if number == 0), END_OF_DOCUMENT
        )
        self._id_of_byte = [vocabulary.get(character, 0) for character in CHARACTER_OF_BYTE]
        # The engine drops an unknown piece unless one is named to stand for it.
        self.engine = Engine(BPE(vocabulary, merges.rules, unk_token=piece_of_id_zero))
        self.engine.pre_tokenizer = ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
        self._fingerprint = {
            "type": _NAME,
            "vocab_sha256": files.digest(vocabulary_data),
            "merges_sha256": files.digest(merges_data),
            "merges_header": merges.header,
            "missing_bytes": missing_bytes if missing else "none",
            "vocab_size": self.vocab_size,
        }

    def encode(self, text: str) -> list[int]:
        """Ids of a text; a special token written out in it is plain text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return encode_texts(self.engine, texts, self.encode_bytes)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any byte string."""
        return encode_any_bytes(data, self.encode, self._id_of_byte)

    def fingerprint(self) -> dict[str, Any]:
        """Type, hashes of both files, and how header and missing bytes were read."""
        return dict(self._fingerprint)


def _end_of_document(vocabulary: dict[str, int], path: str | None) -> int:
    if END_OF_DOCUMENT not in vocabulary:
        raise VocabularyError(
            f"{path} has no {END_OF_DOCUMENT}, which ends documents; give a vocabulary of GPT-2's kind"
        )
    return vocabulary[END_OF_DOCUMENT]
