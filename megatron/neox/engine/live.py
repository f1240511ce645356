"""The model in training as a model to evaluate: the same weights, no copy of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch

from megatron.neox.engine.build import PlainTraining, TrainingEngine
from megatron.neox.engine.inference import InferenceModel
from megatron.neox.engine.plain import LossModel


@contextmanager
def live_model(engine: TrainingEngine, *, vocab_size: int) -> Iterator[InferenceModel]:
    """The engine's model without dropout; afterwards it trains on as if nothing had been.

    Weights must be whole on each tensor rank, and so must sequences: `config/checks.py` has made sure of that.

    Args:
        vocab_size: ids that mean something.
    """
    assert isinstance(engine, PlainTraining)
    assert not engine.grid.sequence_parallel
    net = cast(LossModel, engine.module).model
    try:
        with _own_random_numbers(engine.grid.device):
            yield InferenceModel(
                net,
                engine.config.model,
                engine.grid.tensor_parallel(engine.config.precision.dtype),
                vocab_size=vocab_size,
                padded_vocab_size=engine.padded_vocab_size,
                checkpoint=Path(engine.config.checkpoint.save or ""),
            )
    finally:
        net.train()


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """Give every generator its state back: lm-eval seeds them all."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
