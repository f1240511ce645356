"""What is measured of the model at intervals: the validation loss, and whatever else a door hands in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from megatron.neox.training.hook import Hook, Run

if TYPE_CHECKING:
    from megatron.neox.config import Config
    from megatron.neox.engine.build import StepResult, TrainingEngine
    from megatron.neox.engine.grid import ProcessGrid

log = logging.getLogger(__name__)

Measured = Mapping[str, float | None]
"""Values by the names that monitors get; none where a metric has no value."""


class PrepareEvaluation(Protocol):
    """What the door hands in, since evaluation stands above training: tasks, made before the model is built."""

    def __call__(self, config: Config, grid: ProcessGrid) -> Callable[[TrainingEngine], Measured]:
        """What measures the engine's model, on every rank with the same outcome.

        Raises:
            UserError: a task, its data or the vocabulary is not as it must be.
        """
        ...


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
        if _is_due(run, self.interval):
            run.emit("on_validation", self.evaluate())


class Evaluation(Hook):
    """Call `measure` every `interval` steps and after the last one, and tell the hooks what it found.

    Skipped in a run that is stopped, and after a step whose loss was no number: such a model has nothing to measure.

    Args:
        measure: gives values by name, the same on every rank.
    """

    def __init__(self, measure: Callable[[], Measured], *, interval: int) -> None:
        self.measure = measure
        self.interval = interval

    def on_step(self, run: Run, result: StepResult) -> None:
        """Measure where it is due."""
        if not _is_due(run, self.interval):
            return
        if run.bad_steps:
            log.warning("step %d: not evaluated, for the loss is not a number", run.step)
            return
        run.emit("on_evaluation", self.measure())


def _is_due(run: Run, interval: int) -> bool:
    return run.stop is None and (run.step % interval == 0 or run.step == run.num_steps)
