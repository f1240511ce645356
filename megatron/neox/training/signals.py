"""SIGTERM and Ctrl-C end a run between two steps, with a checkpoint."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

from megatron.neox.engine.agreement import any_rank
from megatron.neox.training.hook import Hook, Run, Stop

if TYPE_CHECKING:
    import torch

    from megatron.neox.engine.build import StepResult

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals(Hook):
    """Finish the step in progress when a signal comes, then stop with 128 plus its number.

    Signals reach ranks at different steps; the ranks agree after each step, so that all stop at the same one.
    Handlers stand from `install` to `restore`; a signal before the first step ends the run after it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.received = 0
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Take over the signals."""
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)

    def restore(self) -> None:
        """Give them back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def on_step(self, run: Run, result: StepResult) -> None:
        """Stop where any rank has received a signal."""
        agreed = any_rank(self.received, self.device)
        if agreed and run.stop is None:
            name = signal.Signals(agreed).name
            log.warning("%s: the run stops after step %d", name, run.step)
            run.stop = Stop(name, exit_code=128 + agreed)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = max(self.received, number)
