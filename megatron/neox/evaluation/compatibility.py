"""What PolyCoder's evaluation did with a model, for figures that compare with its table (`eval_compat: polycoder`).

Sources: frankxu2004/gpt-neox (eval_tasks/eval_adapter.py) and frankxu2004/lm-evaluation-harness.
"""

from __future__ import annotations

import copy
import logging

from megatron.neox.engine.inference import InferenceModel
from megatron.neox.evaluation.evaluated.gguf import GGUFModel
from megatron.neox.evaluation.evaluated.huggingface import HuggingFaceModel
from megatron.neox.generation.language_model import LanguageModel

log = logging.getLogger(__name__)

PUBLISHED_WINDOW = 1024
_OTHERS = (HuggingFaceModel, GGUFModel)


def polycoder_window(model: LanguageModel) -> int:
    """Half of the positions of a checkpoint of GPT-NeoX, 1024 for PolyCoder's 2048; all of another's model's."""
    return model.max_positions if isinstance(model, _OTHERS) else model.max_positions // 2


def warn_of_window(window: int) -> None:
    """Say that a window is another than the one of the published figures."""
    if window != PUBLISHED_WINDOW:
        log.warning(
            "eval_compat polycoder: windows of %d tokens; the published figures are of %d",
            window, PUBLISHED_WINDOW,
        )  # fmt: skip


def with_padding(model: LanguageModel) -> LanguageModel:
    """The same model with the rows that pad its vocabulary as they are: they take their share of the probability.

    Other people's models keep to the ids of their tokenizer, as the fork's path for Hugging Face did.
    """
    if not isinstance(model, InferenceModel) or isinstance(model, _OTHERS):
        return model
    padded = copy.copy(model)
    padded.vocab_size = model.padded_vocab_size
    return padded
