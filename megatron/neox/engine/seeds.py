"""Random numbers as functions of what they are for: no generator's state is ever saved.

Weights depend on the run's seed and the layer's number, so that no parallel layout changes them; dropout
depends on the seed, the step and the place in the grid, so that a resumed run draws what the uninterrupted
one would have.
"""

from __future__ import annotations

import numpy as np
import torch

_WEIGHTS, _DROPOUT = 0, 1  # keep the two uses of one seed apart


def seed_layer(seed: int, layer_number: int) -> None:
    """Seed torch for the initial weights of one layer."""
    _seed_torch(_WEIGHTS, seed, layer_number)


def seed_step(seed: int, step: int, *, data_rank: int, pipe_rank: int) -> None:
    """Seed torch for the dropouts of one optimizer step.

    Tensor ranks of a stage share the seed, since they drop the same activations; what they must drop
    differently, `nn.dropout` takes care of.
    """
    _seed_torch(_DROPOUT, seed, step, data_rank, pipe_rank)


def _seed_torch(*words: int) -> None:
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]) >> 1)  # torch wants 63 bits
