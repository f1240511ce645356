"""Ends of a run that its config sets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from megatron.neox.training.hook import Hook, Run, Stop

if TYPE_CHECKING:
    from megatron.neox.engine.build import StepResult

log = logging.getLogger(__name__)


class ExitInterval(Hook):
    """Stop after `steps` steps of this process; a run that is resumed counts anew."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, run: Run, result: StepResult) -> None:
        """Stop when the steps are done."""
        if run.step - run.first_step >= self.steps and not run.is_last_step:
            log.info("exit_interval: the run stops after step %d", run.step)
            run.stop = Stop("exit_interval")
