"""Memory of the main process and its device, told as the run goes on."""

from __future__ import annotations

import logging
import resource
import sys
from typing import TYPE_CHECKING

import torch

from megatron.neox.plugins import hooks
from megatron.neox.training.hook import Hook, Run

if TYPE_CHECKING:
    from megatron.neox.engine.build import StepResult

log = logging.getLogger(__name__)


@hooks.register("memory")
class Memory(Hook):
    """Log the largest memory use so far, in MiB, every `interval` steps."""

    def __init__(self, *, interval: int = 100) -> None:
        self.interval = interval

    def on_step(self, run: Run, result: StepResult) -> None:
        """Log at every interval."""
        if run.step % self.interval == 0:
            log.info("step %d memory: %s", run.step, describe_memory())


def describe_memory() -> str:
    """Peak resident memory of this process, and on CUDA peak device memory, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mebibytes = peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB
    words = [f"{mebibytes:.0f} MiB resident"]
    if torch.cuda.is_available():
        words.append(f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB on the device")
    return ", ".join(words)
