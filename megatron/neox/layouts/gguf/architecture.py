"""Which of llama.cpp's architectures computes what a model computes."""

from __future__ import annotations

import logging

from megatron.neox.config import ModelConfig
from megatron.neox.errors import ConfigError, Problem
from megatron.neox.layouts.inference_engines import (
    activation_of,
    common_obstacles,
    not_among,
    warn_of_rotary_table,
)

log = logging.getLogger(__name__)

GPTNEOX, GPT2, LLAMA = "gptneox", "gpt2", "llama"
ARCHITECTURES = (GPTNEOX, GPT2, LLAMA)

# Keys of ours, which llama.cpp leaves alone: what its architectures do not tell apart.
ACTIVATION_KEY = "neox.activation"
ROTARY_TABLE_KEY = "neox.rotary_table"
TIED_KEY = "neox.tie_weights"


def choose_architecture(model: ModelConfig) -> str:
    """The architecture of llama.cpp that a model is written as.

    Raises:
        ConfigError: there is none; every obstacle is listed.
    """
    name = GPT2 if model.pos_emb == "learned" else LLAMA if model.norm.name == "rmsnorm" else GPTNEOX
    found = common_obstacles(model) + _obstacles(model, name)
    if found:
        head = Problem("", f"the model cannot be written as GGUF; llama.cpp's {name} comes nearest, but")
        raise ConfigError([head, *found])
    return name


def _obstacles(model: ModelConfig, name: str) -> list[Problem]:
    where = f"llama.cpp's {name}"
    position = "learned" if name == GPT2 else "rotary"
    norm = "rmsnorm" if name == LLAMA else "layernorm"
    activations = ("swiglu",) if name == LLAMA else ("gelu", "gelu_tanh")
    found = not_among("pos_emb", model.pos_emb, (position,), where)
    found += not_among("norm", model.norm.name, (norm,), where)
    found += not_among("activation", activation_of(model), activations, where)
    if model.gpt_j_residual and name != GPTNEOX:
        found.append(Problem.about(["gpt_j_residual"], f"{where} has no parallel residual"))
    if name == LLAMA and position == model.pos_emb and model.rotary_size != model.head_size:
        found.append(
            Problem.about(["rotary_pct"], f"{where} turns whole heads, not {model.rotary_pct} of them")
        )
    return found


def warn_of_differences(model: ModelConfig) -> None:
    """Say where llama.cpp's arithmetic is not the model's."""
    if activation_of(model) == "gelu":
        log.warning(
            "the model has the exact gelu (erf); llama.cpp computes its tanh approximation, through a table of "
            "fp16 values, so that its answers differ slightly from ours"
        )
    warn_of_rotary_table(model, "llama.cpp")
