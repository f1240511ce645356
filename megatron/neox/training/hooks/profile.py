"""A trace of a few steps by torch's profiler."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from megatron.neox.files import appearing
from megatron.neox.plugins import hooks
from megatron.neox.training.hook import Hook, Run

if TYPE_CHECKING:
    from megatron.neox.engine.build import StepResult

log = logging.getLogger(__name__)


@hooks.register("profile")
class Profile(Hook):
    """Trace `steps` steps after step `start` (of this process) into `folder`/rank_R.json, for chrome://tracing."""

    def __init__(self, *, folder: str, start: int = 5, steps: int = 3) -> None:
        self.folder = Path(folder)
        self.start = start
        self.steps = steps
        self._profiler: Any = None

    def on_step(self, run: Run, result: StepResult) -> None:
        """Start and end the trace."""
        taken = run.step - run.first_step
        if taken == self.start:
            self._profiler = torch.profiler.profile()
            self._profiler.start()
        elif taken == self.start + self.steps:
            self._write()

    def on_end(self, run: Run) -> None:
        """Write what there is of a run that ended early."""
        self._write()

    def _write(self) -> None:
        if self._profiler is None:
            return
        self._profiler.stop()
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        path = self.folder / f"rank_{rank}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path) as partial:
            self._profiler.export_chrome_trace(str(partial))
        self._profiler = None
        log.info("profile of %d steps: %s", self.steps, path)
