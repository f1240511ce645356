"""The model that evaluate.py measures: a checkpoint of ours, a causal model of transformers, or a GGUF file.

Whoever measures gets a `LanguageModel` and a `Tokenizer`, and need not know which of them it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from megatron.neox.config import Config
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.inference import load_model
from megatron.neox.evaluation.evaluated.gguf import load_gguf
from megatron.neox.evaluation.evaluated.hf_tokenizer import HuggingFaceTokenizer
from megatron.neox.evaluation.evaluated.huggingface import load_huggingface
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.tokenizers import Tokenizer, build_tokenizer

__all__ = ["EvaluatedModel", "HuggingFaceTokenizer", "load_evaluated"]


@dataclass(frozen=True)
class EvaluatedModel:
    """What is measured.

    Args:
        described: which model it is, for the results file.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    described: Mapping[str, Any]


def load_evaluated(config: Config, grid: ProcessGrid) -> EvaluatedModel:
    """The model that `evaluated_model` names; every rank calls this.

    Raises:
        InputError: there is nothing of that path or name.
        CheckpointError: it is damaged, or of a kind that is not read.
        VocabularyError: its tokenizer is absent, not read, or not its own.
        ConfigError: the device cannot do the precision.
    """
    loaders: Mapping[
        str, Callable[[Config, ProcessGrid], tuple[LanguageModel, Tokenizer, dict[str, Any]]]
    ] = {
        "neox": _load_checkpoint,
        "hf": load_huggingface,
        "gguf": load_gguf,
    }
    kind = config.evaluation.evaluated_model.type
    model, tokenizer, told = loaders[kind](config, grid)
    described = {"model": kind, **told, "tokenizer": tokenizer.fingerprint()}
    return EvaluatedModel(model, tokenizer, described)


def _load_checkpoint(config: Config, grid: ProcessGrid) -> tuple[LanguageModel, Tokenizer, dict[str, Any]]:
    tokenizer = build_tokenizer(config.tokenizer)
    model = load_model(config, grid, tokenizer=tokenizer)
    told = {
        "checkpoint": str(model.checkpoint),
        "precision": config.precision.dtype,
        "architecture": config.model.model_dump(mode="json"),
    }
    return model, tokenizer, told
