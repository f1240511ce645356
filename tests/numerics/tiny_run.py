"""A tiny model, learnable batches and a training run of a few steps, for the tests of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import deepspeed.pipe  # noqa: F401  imported before the ranks are forked, so that they need not
import torch
from torch import Tensor

import megatron.neox.models.gpt_neox  # noqa: F401
from megatron.neox.config import Config
from megatron.neox.engine.build import StepResult, TrainingEngine, build_training_engine
from megatron.neox.engine.grid import ProcessGrid

VOCABULARY = 256
SEQ_LENGTH = 32
GLOBAL_MICRO_BATCHES = 4  # micro-batches of an optimizer step, over all data ranks

KEYS: dict[str, Any] = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "seq_length": SEQ_LENGTH,
    "max_position_embeddings": SEQ_LENGTH,
    "pos_emb": "rotary",
    "rotary_pct": 0.25,
    "gpt_j_residual": True,
    "no_weight_tying": True,
    "optimizer": {"type": "adam", "params": {"lr": 3e-3, "betas": [0.9, 0.95]}},
    "lr_decay_style": "cosine",
    "warmup": 0.2,
    "train_iters": 10,
    "train_micro_batch_size_per_gpu": 2,
}
"""YAML keys of the tiny model."""


def make_config(grid: dict[str, int], **keys: Any) -> Config:
    """The tiny config on a grid {"pp": 2, "tp": 2, "dp": 1}; every grid sees the same global batch."""
    return Config.from_flat(
        KEYS
        | {
            "pipe_parallel_size": grid.get("pp", 0),
            "model_parallel_size": grid.get("tp", 1),
            "gradient_accumulation_steps": GLOBAL_MICRO_BATCHES // grid.get("dp", 1),
        }
        | keys
    )


def num_ranks(grid: dict[str, int]) -> int:
    """Processes of a grid."""
    return grid.get("pp", 1) * grid.get("tp", 1) * grid.get("dp", 1)


def batches(data_rank: int, data_size: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows that count up by 1, 2 or 3; the micro-batches of a step are dealt out to the data ranks."""
    number = first_step * GLOBAL_MICRO_BATCHES + data_rank
    while True:
        generator = torch.Generator().manual_seed(number)
        start = torch.randint(0, VOCABULARY, (2, 1), generator=generator)
        stride = torch.randint(1, 4, (2, 1), generator=generator)
        tokens = (start + stride * torch.arange(SEQ_LENGTH + 1)) % VOCABULARY
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        number += data_size


def engine_on(grid: ProcessGrid, config: Config) -> TrainingEngine:
    """The tiny model's engine."""
    return build_training_engine(config, grid, padded_vocab_size=VOCABULARY)


def steps(engine: TrainingEngine, count: int) -> list[StepResult]:
    """Take `count` steps from where the engine stands."""
    stream = batches(engine.grid.data_rank, engine.grid.data_size, engine.step)
    return [engine.train_step(stream) for _ in range(count)]


def run_and_evaluate(grid: dict[str, int], keys: dict[str, Any], count: int = 4) -> list[float]:
    """Losses of a fresh run, its gradient norms, and the loss of an evaluation; runs on every rank."""
    config = make_config(grid, **keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        results = steps(engine, count)
        held_out = batches(process_grid.data_rank, process_grid.data_size, first_step=1000)
        evaluation = engine.evaluate(held_out, engine.num_micro_batches)
        return [*(r.loss for r in results), *(r.grad_norm for r in results), evaluation]
