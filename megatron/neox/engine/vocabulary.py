"""What a checkpoint says of its vocabulary: the rows of its embedding, and the tokenizer it was trained with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.neox.config import Config
from megatron.neox.errors import CheckpointError, VocabularyError
from megatron.neox.layouts.manifest import NAME, Manifest
from megatron.neox.layouts.upstream import embedding_rows
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)


def stored_rows(checkpoint: Path, config: Config) -> int:
    """Rows of the checkpoint's embedding, padding included, which the model must have too.

    How many rows of padding a fresh model gets depends on model_parallel_size; a trained one keeps those it has.

    Raises:
        CheckpointError: they are not padded_vocab_size, or the tensor ranks cannot share them; or a file is damaged.
    """
    if (checkpoint / NAME).exists():
        rows = int(Manifest.read(checkpoint).architecture["padded_vocab_size"])
    else:
        rows = embedding_rows(checkpoint)
    given = config.model.padded_vocab_size
    if given not in (None, rows):
        raise CheckpointError(
            f"padded_vocab_size is {given}, and the embedding of {checkpoint} has {rows} rows; leave that key out"
        )
    heads, ranks = config.model.num_attention_heads, config.parallelism.model_parallel_size
    if rows % ranks:
        sizes = [str(size) for size in range(1, heads + 1) if rows % size == 0 and heads % size == 0]
        raise CheckpointError(
            f"the embedding of {checkpoint} has {rows} rows, which {ranks} tensor ranks cannot share evenly; "
            f"give model_parallel_size {' or '.join(sizes)}"
        )
    return rows


def refuse_larger(tokenizer: Tokenizer, rows: int, checkpoint: Path) -> None:
    """Refuse a tokenizer that has more ids than the checkpoint has rows for.

    Raises:
        VocabularyError: it has.
    """
    if tokenizer.vocab_size > rows:
        raise VocabularyError(
            f"the tokenizer has {tokenizer.vocab_size} ids, and {checkpoint} has rows for {rows}; "
            "give the vocabulary that the model was trained with"
        )


def check_fingerprint(checkpoint: Path, fingerprint: Mapping[str, Any], *, allow_mismatch: bool) -> None:
    """Compare a tokenizer with the one that a checkpoint was trained with, as far as the checkpoint tells.

    Args:
        fingerprint: of the tokenizer; empty where none is known, which is told.
        allow_mismatch: go on with another one, which is told.

    Raises:
        VocabularyError: they differ; lists what.
    """
    manifest = Manifest.read(checkpoint) if (checkpoint / NAME).exists() else None
    trained = manifest.tokenizer if manifest is not None else {}
    if not trained or not fingerprint:
        unknown = f"{checkpoint} does not tell which tokenizer it was trained with"
        log.info("%s: the tokenizer is taken on trust", "no tokenizer is given" if trained else unknown)
        return
    differing = sorted(key for key in trained if trained[key] != fingerprint.get(key))
    if not differing:
        return
    lines = [f"  {key}: {trained[key]} then, {fingerprint.get(key, 'absent')} now" for key in differing]
    found = "\n".join([f"{checkpoint} was trained with another tokenizer than the config names", *lines])
    if not allow_mismatch:
        raise VocabularyError(
            f"{found}\n  give the tokenizer that it was trained with; allow_tokenizer_mismatch: true goes on with this"
        )
    log.warning("%s\n  allow_tokenizer_mismatch: going on with it", found)
