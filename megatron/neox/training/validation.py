"""Validation at intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from megatron.neox.training.hook import Hook, Run

if TYPE_CHECKING:
    from megatron.neox.engine.build import StepResult


class Validation(Hook):
    """Call `evaluate` every `interval` steps and after the last one, and tell the hooks its loss.

    A run that is stopped skips it: whoever asked for the stop is waiting.

    Args:
        evaluate: computes the mean validation loss, in nats per token, the same on every rank.
    """

    def __init__(self, evaluate: Callable[[], float], *, interval: int) -> None:
        self.evaluate = evaluate
        self.interval = interval

    def on_step(self, run: Run, result: StepResult) -> None:
        """Validate where it is due."""
        due = run.step % self.interval == 0 or run.step == run.num_steps
        if due and run.stop is None:
            run.emit("on_validation", self.evaluate())
