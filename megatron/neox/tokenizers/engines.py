"""What turns many texts into ids: the tokenizer itself, or gigatoken, which gives the same ids many times faster.

gigatoken runs the tokenizers that the library `tokenizers` runs (byte-level BPE), and is used where it is installed,
can load the vocabulary, and agrees with the tokenizer on texts made to tell the two apart. Bytes that the vocabulary
lacks, which it refuses, get ids behind the vocabulary here, and the id that the tokenizer gives them afterwards.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from megatron.neox.errors import DependencyError, NeoXError, VocabularyError
from megatron.neox.memory import resident_bytes, spare_large_blocks, trim_heap
from megatron.neox.tokenizers.byte_level import CHARACTER_OF_BYTE
from megatron.neox.tokenizers.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_MOST_CHARACTERS = 32 << 20
_LEAST_CHARACTERS = 8 << 20
_GROWTH_BYTES = 8 << 20

EngineName = Literal["auto", "gigatoken", "tokenizer"]

# Where tokenizers are known to differ: white space of every kind, what BPE splits and joins, digits, contractions,
# other scripts, characters of several code points, special tokens written out, every byte that text can hold.
_TELLING = (
    "",
    " ",
    "\n",
    "\t\tx = 1\n",
    "    def f(self):\n        return self.x  # it's, they'll, I'd've\n\n\n",
    "a  b   c    d",
    "\r\nx\r\ry\n\r",
    "x \n  y\t \n",
    "\u00a0\u2003\u3000\u2028\u2029\ufeff",
    "1234567890 0x1F 1e-10 1_000 3.14159",
    "naïve façade Ωμέγα Привет 日本語のテキスト 한국어 עברית العربية हिन्दी",
    "👩‍👩‍👧‍👦🏳️‍🌈 é e\u0301 ﬁ ½ ²",
    "<|endoftext|><|padding|></s><eos>",
    "!@#$%^&*()_+-=[]{};:,.<>?/|`~ && || == != <= >= -> => :: ... /* */ // #",
    "camelCaseName snake_case_name SCREAMING",
    "".join(map(chr, range(256))),
    "if(a){b;}" * 40,
    " " * 300 + "x" + "\t" * 70 + "\n" * 90,
    "\x00\x01\x7f\x80\x9f",
    "aaaaaaa" * 99,
)


class BatchEncoder(Protocol):
    """Ids of many texts at once."""

    name: str

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the texts end to end, int32 `[n]`, and how many each has, int64 `[len(texts)]`."""
        ...


class PlainEncoder:
    """The tokenizer itself."""

    name = "tokenizer"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As `BatchEncoder.encode`."""
        documents = self._tokenizer.encode_batch(texts)
        sizes = np.fromiter(map(len, documents), np.int64, len(documents))
        ids = np.empty(int(sizes.sum()), np.int32)
        start = 0
        for document, size in zip(documents, sizes.tolist()):
            ids[start : start + size] = document
            start += size
        return ids, sizes


class GigatokenEncoder:
    """gigatoken with a tokenizer's vocabulary and rules.

    It remembers each different word that it met, 32 bytes and more a word, without a limit: after 286 MB of ever new
    words it holds 1.3 GB. So it is built anew, in an eighth of a second, after some text, and sooner where the process
    has grown much.

    Args:
        most_text: characters that an engine encodes; 32 Mi of code make the process grow by 5 to 10 MB.
        least_text: characters that it encodes before it may go for its size, which is measured from a quarter of
            them on.
        growth: bytes by which the process may grow.

    Raises:
        DependencyError: it is not installed.
        VocabularyError: it cannot run this tokenizer, or gives other ids.
    """

    name = "gigatoken"

    def __init__(
        self, tokenizer: Tokenizer, *, most_text: int = _MOST_CHARACTERS, least_text: int = _LEAST_CHARACTERS,
        growth: int = _GROWTH_BYTES,
    ) -> None:  # fmt: skip
        self._num_ids = tokenizer.vocab_size
        self._plain = PlainEncoder(tokenizer)
        self._content, self._id_of_missing = _byte_complete(tokenizer)
        self._most_text, self._least_text, self._growth = most_text, least_text, growth
        self.num_builds = 0
        spare_large_blocks()  # its tables double as they grow
        try:
            self._build()
        except ImportError as error:
            raise DependencyError(
                "--engine gigatoken needs the package gigatoken, which is not installed: "
                "pip install gigatoken==0.10.0"
            ) from error
        except Exception as error:  # whatever its own code raises
            raise VocabularyError(
                f"gigatoken cannot run this tokenizer: {error}; --engine tokenizer can"
            ) from error
        if not self.agrees_on(_TELLING):
            raise VocabularyError(
                "gigatoken gives other ids than this tokenizer; --engine tokenizer is right"
            )

    def agrees_on(self, texts: Sequence[str]) -> bool:
        """Whether it gives the tokenizer's ids."""
        ours, theirs = self.encode(texts), self._plain.encode(texts)
        return all(map(np.array_equal, ours, theirs))

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As `BatchEncoder.encode`."""
        self._bound_memory()
        self._num_characters += sum(map(len, texts))
        try:
            # As fast as its batches, which come as awkward arrays: that library takes 0.2 s and 30 MB to import.
            documents = [self._engine.encode(text.encode()) for text in texts]
        except UnicodeEncodeError:  # a lone surrogate, which only the tokenizer has a rule for
            return self._plain.encode(texts)
        sizes = np.fromiter(map(len, documents), np.int64, len(documents))
        ids = np.concatenate([np.empty(0, np.uint32), *documents]).view(np.int32)
        if self._id_of_missing is not None:
            ids[ids >= self._num_ids] = self._id_of_missing
        return ids, sizes

    def _build(self) -> None:
        self._engine: Any = None  # the old one goes first, or there would be two
        trim_heap()
        self._engine = importlib.import_module("gigatoken").Tokenizer.from_json(self._content)
        trim_heap()
        self._num_characters = self._settled_bytes = 0
        self.num_builds += 1

    def _bound_memory(self) -> None:
        """Build the engine anew where it has encoded much, or the process has grown too large."""
        held = resident_bytes()
        if self._num_characters < self._least_text // 4:
            self._settled_bytes = held  # with what it takes for texts and their ids
        is_large = self._num_characters >= self._least_text and held - self._settled_bytes > self._growth
        if is_large or self._num_characters >= self._most_text:
            self._build()


def batch_encoder(tokenizer: Tokenizer, engine: EngineName = "auto") -> BatchEncoder:
    """The encoder of that name; `auto` is gigatoken where it serves, and says so where it does not.

    Raises:
        DependencyError, VocabularyError: gigatoken is asked for, and cannot be had.
    """
    if engine == "tokenizer":
        return PlainEncoder(tokenizer)
    try:
        return GigatokenEncoder(tokenizer)
    except (DependencyError, VocabularyError) as error:
        if engine == "gigatoken":
            raise
        log.info("encoding without gigatoken, which is much faster: %s", error)
        return PlainEncoder(tokenizer)


def check_agreement(encoder: BatchEncoder, texts: Sequence[str]) -> None:
    """Compare a fast encoder with its tokenizer on texts of the very data.

    Raises:
        NeoXError: they differ.
    """
    if isinstance(encoder, GigatokenEncoder) and not encoder.agrees_on(texts):
        raise NeoXError(
            "gigatoken gives other ids than the tokenizer on this data; --engine tokenizer is slower, and right"
        )


def _byte_complete(tokenizer: Tokenizer) -> tuple[str, int | None]:
    """tokenizer.json whose vocabulary has all bytes, without anything that is not text to ids; the id of those added.

    Raises:
        VocabularyError: the tokenizer is not one of the library `tokenizers`, or more than a vocabulary and rules.
    """
    engine = getattr(tokenizer, "engine", None)
    if engine is None:
        raise VocabularyError(f"gigatoken cannot run {type(tokenizer).__name__}; --engine tokenizer can")
    content = json.loads(engine.to_str())
    model = content["model"]
    if model["type"] != "BPE" or any(not token["special"] for token in content["added_tokens"]):
        raise VocabularyError(
            "gigatoken runs BPE vocabularies without added words only; --engine tokenizer runs this one"
        )
    # Special tokens written out in a text are text, and none is added around it.
    content |= {"added_tokens": [], "post_processor": None}
    vocabulary = model["vocab"]
    missing = [character for character in CHARACTER_OF_BYTE if character not in vocabulary]
    if not missing:
        return json.dumps(content), None
    if model["unk_token"] not in vocabulary:
        raise VocabularyError(
            f"the vocabulary lacks {len(missing)} bytes and drops them, which gigatoken cannot; --engine tokenizer can"
        )
    first = tokenizer.vocab_size
    model["vocab"] = vocabulary | {character: first + place for place, character in enumerate(missing)}
    return json.dumps(content), vocabulary[model["unk_token"]]
