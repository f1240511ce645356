"""New byte-level BPE vocabularies, learned from files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from megatron.neox.errors import InputError, OutputError, VocabularyError
from megatron.neox.tokenizers.gpt2_bpe import END_OF_DOCUMENT
from megatron.neox.tokenizers.vocabulary_files import HEADER_START
from tokenizers import AddedToken
from tokenizers import Tokenizer as Engine
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

log = logging.getLogger(__name__)

PADDING = "<|padding|>"
SPECIAL_TOKENS = (END_OF_DOCUMENT, PADDING)
FILE_NAMES = ("vocab.json", "merges.txt", "tokenizer.json")
MIN_VOCAB_SIZE = len(SPECIAL_TOKENS) + 256


def train_vocabulary(texts: Iterable[str], *, vocab_size: int, min_frequency: int = 2) -> Engine:
    """Learn a byte-level BPE: ids 0 `<|endoftext|>`, 1 `<|padding|>`, 2 to 257 the bytes, then the rules.

    The same texts give the same vocabulary whatever their order. Fewer than `vocab_size` pieces come out
    where the texts have no more pairs that occur `min_frequency` times.

    Raises:
        VocabularyError: `vocab_size` has no room for every byte.
        InputError: there is no text.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise VocabularyError(
            f"--vocab-size is {vocab_size}; {MIN_VOCAB_SIZE} are needed for 256 bytes "
            f"and {len(SPECIAL_TOKENS)} special tokens"
        )
    engine = Engine(BPE())
    engine.pre_tokenizer = ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    engine.decoder = ByteLevelDecoder()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    counted = _Counted(texts)
    engine.train_from_iterator(counted, trainer)
    if not counted.num_texts:
        raise InputError("no text to learn a vocabulary from")
    return engine


def is_sampled(name: str, *, share: float, seed: int) -> bool:
    """Whether a document is in the random sample of that share; of a larger share with the same seed it is, too.

    It depends on the document's name and the seed alone: not on the order, the machine, or the other documents.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


class _Counted:
    """Texts, counted as they pass."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.num_texts = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.num_texts += 1
            yield text


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """Stop before the work where its result could not be written.

    Raises:
        OutputError: a file is there already, and is not to be replaced.
    """
    existing = [name for name in FILE_NAMES if (folder / name).exists()]
    if existing and not overwrite:
        raise OutputError(
            f"{folder} holds {', '.join(existing)} already; give another --output, or --overwrite"
        )


def write_vocabulary(engine: Engine, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write vocab.json, merges.txt (with its `#version` line) and tokenizer.json; each appears complete.

    Raises:
        OutputError: a file is there already, or the folder cannot be made.
    """
    refuse_existing(folder, overwrite=overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".vocabulary-", dir=folder))
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; give another --output") from error
    try:
        for name, content in zip(FILE_NAMES, _contents(engine), strict=True):
            _write(staging / name, content)
        for name in FILE_NAMES:
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging)
    return [folder / name for name in FILE_NAMES]


def _contents(engine: Engine) -> tuple[str, str, str]:
    """The three files, all made from what the engine itself would save."""
    saved = engine.to_str(pretty=True)
    model = json.loads(saved)["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    merges = [f"{HEADER_START}: 0.2", *(" ".join(rule) for rule in model["merges"])]
    return json.dumps(vocabulary, ensure_ascii=False), "\n".join(merges) + "\n", saved


def _write(path: Path, content: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
