"""GGUF files, computed by our own layers: quantised weights as the numbers that they stand for."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from megatron.neox.config import Config
from megatron.neox.conversion.inputs import open_input
from megatron.neox.engine.grid import DTYPES, ProcessGrid
from megatron.neox.engine.inference import InferenceModel, inference_dtype
from megatron.neox.errors import InputError, VocabularyError
from megatron.neox.evaluation.evaluated.huggingface import load_tokenizer
from megatron.neox.layouts.gguf.file import GGUFFile
from megatron.neox.layouts.inference_engines import import_package
from megatron.neox.models.plan import plain_model
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import models
from megatron.neox.tokenizers import HFTokenizer, Tokenizer

log = logging.getLogger(__name__)


class GGUFModel(InferenceModel):
    """The layers with the weights of a GGUF file."""


def load_gguf(config: Config, grid: ProcessGrid) -> tuple[InferenceModel, Tokenizer, dict[str, Any]]:
    """The model, the vocabulary of its file, and what the results say of it.

    Raises:
        InputError: there is no such file, or it is none.
        CheckpointError: it is damaged, or of an architecture that is not read.
        VocabularyError: its vocabulary is not read, and no tokenizer is given.
        DependencyError: the package gguf is not installed.
        ConfigError: the device cannot do the precision.
    """
    wanted = config.evaluation.evaluated_model
    path = Path(wanted.path or "").expanduser()
    if not path.is_file():
        raise InputError(
            f"evaluated_model: there is no GGUF file {wanted.path} (looked for {path.absolute()})"
        )
    if wanted.revision is not None:
        raise InputError("evaluated_model.revision belongs to a name on the hub, and a GGUF is a file here")
    with tempfile.TemporaryDirectory() as workspace:
        opened = open_input(str(path), workspace=Path(workspace))
    stored, rows = opened.stored, opened.stored.model.padded_vocab_size
    assert rows is not None, "a stored model knows its vocabulary"
    if wanted.tokenizer is not None:
        tokenizer: Tokenizer | None = load_tokenizer(Path(wanted.tokenizer).expanduser(), num_rows=rows)
    else:
        tokenizer = opened.tokenizer
    if tokenizer is None:
        raise VocabularyError(
            f"{opened.notes[0]}: evaluated_model.tokenizer names a folder that has one"
            if opened.notes
            else str(path)
        )
    if isinstance(tokenizer, HFTokenizer):
        _take_marks(path, tokenizer, rows)
    dtype = inference_dtype(config, grid)
    parallel = TensorParallel.single(dtype=DTYPES[dtype], device=grid.device)
    plans = models.get(stored.model.model)(stored.model, padded_vocab_size=rows, parallel=parallel)
    net = plain_model(plans, weights=lambda number, _: stored.read_layer(number)).to(grid.device)
    log.info("loaded %s (%s, %s)", wanted.path, stored.kind, dtype)
    model = GGUFModel(
        net, stored.model, parallel, vocab_size=tokenizer.vocab_size, padded_vocab_size=rows, checkpoint=path
    )
    told = {
        "path": wanted.path,
        "kind": stored.kind,
        "precision": dtype,
        "architecture": stored.model.model_dump(mode="json"),
    }
    return model, tokenizer, told


def _take_marks(path: Path, tokenizer: Any, rows: int) -> None:
    """The tokens that begin and end documents by the file's own keys; names alone tell less."""
    keys = import_package("gguf").Keys.Tokenizer
    file = GGUFFile.open(path)
    end, start = file.number(keys.EOS_ID), file.number(keys.BOS_ID)
    for name, number in (("eod", end), ("start", end if start is None else start)):
        if number is not None and 0 <= number < min(rows, tokenizer.vocab_size):
            setattr(tokenizer, name, int(number))
