"""When checkpoints are written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.neox.config import CheckpointConfig
from megatron.neox.training.hook import Hook, Run

if TYPE_CHECKING:
    from megatron.neox.engine.build import StepResult

log = logging.getLogger(__name__)


class CheckpointSchedule:
    """Steps at which a checkpoint is due, besides the last one.

    Linear spacing saves at f, 2f, 3f, .. and log spacing at f, f^2, f^3, .., with f = checkpoint_factor.
    """

    def __init__(self, section: CheckpointConfig) -> None:
        self.factor = section.checkpoint_factor
        self.is_log = section.checkpoint_scale == "log"
        assert not (self.is_log and self.factor == 1), "config/checks.py refuses a factor that never advances"
        self.extra = frozenset(section.extra_save_iters)

    def is_due(self, step: int) -> bool:
        """Whether `step` is one of them."""
        if step in self.extra:
            return True
        if self.factor is None:
            return False
        return step in _powers(self.factor, step) if self.is_log else step % self.factor == 0


def _powers(factor: int, limit: int) -> Iterator[int]:
    power = factor
    while power <= limit:
        yield power
        power *= factor


class Checkpoints(Hook):
    """Save when the schedule says so, and at the end however it comes.

    Weights after a loss that is no number are not saved: they would push out good checkpoints.

    Args:
        save: writes a checkpoint with the given state, on all ranks, and returns its folder.
        prune: removes older checkpoints; called on all ranks after each save.
    """

    def __init__(
        self,
        schedule: CheckpointSchedule,
        *,
        save: Callable[[dict[str, Any]], Path],
        prune: Callable[[], None],
    ) -> None:
        self.schedule = schedule
        self.save = save
        self.prune = prune

    def on_start(self, run: Run) -> None:
        """Save the untrained model where extra_save_iters names step 0."""
        if run.step == 0 and 0 in self.schedule.extra:
            self._save(run)

    def on_step(self, run: Run, result: StepResult) -> None:
        """Save where it is due."""
        if not (run.is_last_step or self.schedule.is_due(run.step)):
            return
        if run.bad_steps:
            log.warning("no checkpoint at step %d: the loss is not a number", run.step)
            return
        self._save(run)

    def _save(self, run: Run) -> None:
        path = self.save({"step": run.step, "num_samples": run.num_samples})
        log.info("saved %s", path)
        self.prune()
        run.emit("on_checkpoint", path)
