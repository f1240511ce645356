"""The training loop. What happens besides optimizer steps is a hook."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from megatron.neox.training.hook import Run

if TYPE_CHECKING:
    import torch


def train(run: Run, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Take optimizer steps until the run is done or a hook stops it.

    Args:
        batches: this rank's micro-batches, the first of them the one after `run.num_samples`.
    """
    run.emit("on_start")
    while not run.is_last_step:
        start = time.perf_counter()
        result = run.engine.train_step(batches)
        run.step_seconds = time.perf_counter() - start
        run.step += 1
        run.num_samples += run.batch_size
        run.emit("on_step", result)
    run.emit("on_end")
