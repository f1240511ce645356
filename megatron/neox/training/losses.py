"""Losses that are no numbers, and steps that were skipped: said, and in the end fatal."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from megatron.neox.errors import ResourceError
from megatron.neox.training.hook import Hook, Run

if TYPE_CHECKING:
    from megatron.neox.engine.build import StepResult

log = logging.getLogger(__name__)


class LossGuard(Hook):
    """Report bad steps, and stop the run after `limit` of them in a row.

    A skipped step (gradients that are no numbers, common while fp16 finds its loss scale) is said but not
    counted: DeepSpeed ends a run whose scale cannot shrink any more.
    """

    def __init__(self, *, limit: int) -> None:
        self.limit = limit

    def on_step(self, run: Run, result: StepResult) -> None:
        """Judge the step's loss.

        Raises:
            ResourceError: it was the last that is borne.
        """
        if result.skipped:
            scale = f" (loss scale {result.loss_scale:g})" if result.loss_scale != 1 else ""
            log.warning("step %d was skipped: its gradients are not finite%s", run.step, scale)
        if math.isfinite(result.loss):
            run.bad_steps = 0
            return
        run.bad_steps += 1
        log.warning("step %d: the loss is %s (%d in a row)", run.step, result.loss, run.bad_steps)
        if run.bad_steps >= self.limit:
            raise ResourceError(
                f"the loss was not a number for {run.bad_steps} steps in a row, up to step {run.step}; "
                "the run stops\n  checkpoints from before stand; what helps: a lower learning rate, "
                "more warmup, bf16 instead of fp16, or other data"
            )
