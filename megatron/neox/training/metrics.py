"""What is logged of a run, and when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from megatron.neox.monitors import Monitor
from megatron.neox.training.hook import Hook, Run
from megatron.neox.training.throughput import Throughput

if TYPE_CHECKING:
    from megatron.neox.engine.build import StepResult


class Metrics(Hook):
    """Give the monitors one set of values every `interval` steps, after a validation or evaluation, and at the end.

    `loss` is the mean over the steps since the last set; learning rate, gradient norm and loss scale are
    those of the step itself; speed leaves validations and checkpoints out.
    """

    def __init__(
        self, monitors: Sequence[Monitor], throughput: Throughput, *, interval: int, seq_length: int
    ) -> None:
        self.monitors = monitors
        self.throughput = throughput
        self.interval = interval
        self.seq_length = seq_length
        self._losses: list[float] = []
        self._seconds = 0.0
        self._skipped = 0
        self._validation: float | None = None
        self._evaluation: dict[str, float | None] = {}

    def on_validation(self, run: Run, loss: float) -> None:
        """Keep the loss for the values of this step."""
        self._validation = loss

    def on_evaluation(self, run: Run, values: Mapping[str, float | None]) -> None:
        """Keep what was found for the values of this step."""
        self._evaluation |= values

    def on_step(self, run: Run, result: StepResult) -> None:
        """Count the step, and log where it is due."""
        self._losses.append(result.loss)
        self._seconds += run.step_seconds
        self._skipped += int(result.skipped)
        is_measured = self._validation is not None or self._evaluation
        if run.is_last_step or is_measured or run.step % self.interval == 0:
            values = self._values(run, result)
            for monitor in self.monitors:
                monitor.log(run.step, values)
            self._losses, self._seconds, self._skipped = [], 0.0, 0
            self._validation, self._evaluation = None, {}

    def _values(self, run: Run, result: StepResult) -> dict[str, float | None]:
        tokens = len(self._losses) * run.batch_size * self.seq_length
        values: dict[str, float | None] = {"loss": sum(self._losses) / len(self._losses)}
        if self._validation is not None:
            values["validation_loss"] = self._validation
            values["validation_perplexity"] = math.exp(min(self._validation, 700.0))
        values |= self._evaluation
        values |= {"learning_rate": result.learning_rate, "grad_norm": result.grad_norm}
        if result.loss_scale != 1:
            values["loss_scale"] = result.loss_scale
        values["skipped_steps"] = float(self._skipped)
        values |= self.throughput.values(tokens, self._seconds)
        values["tokens"] = float(run.num_samples * self.seq_length)
        return values
