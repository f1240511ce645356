from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from megatron.neox.engine.build import StepResult
from megatron.neox.training.hook import Run, Stop
from megatron.neox.training.loop import train
from megatron.neox.training.signals import StopSignals
from tests.forked_ranks import run_ranks


class Signalled:
    """An engine whose rank gets a signal during its second step."""

    def __init__(self, number: int, *, own: bool) -> None:
        self.number = number
        self.own = own
        self.steps = 0

    def train_step(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> StepResult:
        self.steps += 1
        if self.own and self.steps == 2:
            os.kill(os.getpid(), self.number)
        return StepResult(1.0, 1.0, 0.1, skipped=False, loss_scale=1)


def stopped_run(number: int, *, own: bool = True) -> Run:
    signals = StopSignals(torch.device("cpu"))
    signals.install()
    try:
        run = Run(Signalled(number, own=own), [signals], num_steps=5, batch_size=1)
        train(run, iter(()))
        return run
    finally:
        signals.restore()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_its_step(number: signal.Signals, code: int) -> None:
    run = stopped_run(number)
    assert run.step == 2
    assert run.stop == Stop(number.name, code)


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stopped_run(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def _one_is_signalled() -> tuple[int, int]:
    torch.distributed.init_process_group("gloo")
    run = stopped_run(signal.SIGTERM, own=os.environ["RANK"] == "1")
    torch.distributed.destroy_process_group()
    assert run.stop is not None
    return run.step, run.stop.exit_code


def test_all_ranks_stop_at_the_same_step() -> None:
    assert run_ranks(3, _one_is_signalled) == [(2, 143)] * 3
