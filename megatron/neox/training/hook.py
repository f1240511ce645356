"""What the loop calls, and what it shows: hooks and the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from megatron.neox.engine.build import StepResult


class Engine(Protocol):
    """What the loop needs of an engine."""

    def train_step(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> StepResult:
        """Take one optimizer step."""
        ...


@dataclass(frozen=True)
class Stop:
    """Why a run ends before its last step."""

    reason: str
    exit_code: int = 0


class Hook:
    """A part called at the loop's events on every rank; a plugin of kind `hook` overrides what it needs.

    A hook that talks to other ranks must do so on all of them. `run.stop` set in `on_step` ends the run.
    """

    def on_start(self, run: Run) -> None:
        """Before the first step."""

    def on_step(self, run: Run, result: StepResult) -> None:
        """After every optimizer step; `run.step` counts it already."""

    def on_validation(self, run: Run, loss: float) -> None:
        """After a validation, with its mean loss in nats per token."""

    def on_evaluation(self, run: Run, values: Mapping[str, float | None]) -> None:
        """After an evaluation, with what it found: `eval/code_python/bits_per_byte`, `validation_loss/python`."""

    def on_checkpoint(self, run: Run, path: Path) -> None:
        """After a checkpoint stands whole at `path`."""

    def on_end(self, run: Run) -> None:
        """After the last step; not called when an error ends the run."""


@dataclass
class Run:
    """The state of the loop, as hooks see it.

    Args:
        step: optimizer steps taken, those of earlier processes included.
        num_samples: training samples read, likewise; the next batch begins there.
        num_steps: step at which the run is done.
        batch_size: samples in an optimizer step.
    """

    engine: Any
    hooks: Sequence[Hook]
    num_steps: int
    batch_size: int
    step: int = 0
    num_samples: int = 0
    stop: Stop | None = None
    step_seconds: float = 0.0  # duration of the step just taken
    bad_steps: int = 0  # steps in a row whose loss was no number
    first_step: int = field(init=False)

    def __post_init__(self) -> None:
        self.first_step = self.step

    @property
    def is_last_step(self) -> bool:
        """Whether no step follows: the run is done, or something stops it."""
        return self.step >= self.num_steps or self.stop is not None

    def emit(self, event: str, *values: Any) -> None:
        """Call method `event` of every hook, in their order."""
        for hook in self.hooks:
            getattr(hook, event)(self, *values)
