"""The loop with its hooks, on the smallest engine there can be: one weight that is drawn to 3."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.neox.config import CheckpointConfig
from megatron.neox.engine.build import StepResult
from megatron.neox.errors import ResourceError
from megatron.neox.training.checkpoints import Checkpoints, CheckpointSchedule
from megatron.neox.training.hook import Hook, Run, Stop
from megatron.neox.training.limits import ExitInterval
from megatron.neox.training.loop import train
from megatron.neox.training.losses import LossGuard
from megatron.neox.training.metrics import Metrics
from megatron.neox.training.throughput import Throughput
from megatron.neox.training.validation import Evaluation, Validation

BATCH_SIZE = 4


class OneWeight:
    """Gradient descent on (w - 3)^2 from w = 0; `bad_from` makes losses from that step on no numbers."""

    def __init__(self, bad_from: int | None = None) -> None:
        self.weight = 0.0
        self.step = 0
        self.bad_from = bad_from

    def train_step(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> StepResult:
        next(batches)
        self.step += 1
        loss, gradient = (self.weight - 3) ** 2, 2 * (self.weight - 3)
        self.weight -= 0.25 * gradient
        if self.bad_from is not None and self.step >= self.bad_from:
            return StepResult(math.nan, math.inf, 0.25, skipped=True, loss_scale=1)
        return StepResult(loss, abs(gradient), 0.25, skipped=False, loss_scale=1)


class Recorder:
    """A monitor that keeps what it is given."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float | None]]] = []

    def start(self, config_keys: Mapping[str, Any]) -> None:
        """Nothing to open."""

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        self.logged.append((step, dict(values)))

    def close(self) -> None:
        """Nothing to close."""


class Events(Hook):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_start(self, run: Run) -> None:
        self.seen.append("start")

    def on_step(self, run: Run, result: StepResult) -> None:
        self.seen.append(f"step {run.step}")

    def on_validation(self, run: Run, loss: float) -> None:
        self.seen.append(f"validation {loss}")

    def on_checkpoint(self, run: Run, path: Path) -> None:
        self.seen.append(f"checkpoint {path.name}")

    def on_end(self, run: Run) -> None:
        self.seen.append("end")


def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield torch.zeros(1, 1), torch.zeros(1, 1)


def run_with(
    *hooks: Hook, num_steps: int = 4, step: int = 0, num_samples: int = 0, engine: OneWeight | None = None
) -> Run:
    run = Run(engine or OneWeight(), hooks, num_steps, BATCH_SIZE, step=step, num_samples=num_samples)
    train(run, endless())
    return run


def saving(saved: list[tuple[int, int]], **keys: Any) -> Checkpoints:
    def save(state: dict[str, Any]) -> Path:
        saved.append((state["step"], state["num_samples"]))
        return Path(f"global_step{state['step']}")

    return Checkpoints(
        CheckpointSchedule(CheckpointConfig.model_validate(keys)), save=save, prune=lambda: None
    )


def metrics(recorder: Recorder, *, interval: int) -> Metrics:
    return Metrics([recorder], Throughput(100.0, 60.0, peak=1e6), interval=interval, seq_length=8)


def test_events_come_in_order() -> None:
    events = Events()
    saved: list[tuple[int, int]] = []
    run = run_with(
        Validation(lambda: 2.5, interval=2), saving(saved, checkpoint_factor=3), events, num_steps=4
    )
    assert events.seen == [
        "start", "step 1", "validation 2.5", "step 2", "checkpoint global_step3", "step 3", "validation 2.5",
        "checkpoint global_step4", "step 4", "end",
    ]  # fmt: skip
    assert (run.step, run.num_samples, run.engine.weight) == (4, 16, 2.8125)
    assert saved == [(3, 12), (4, 16)]


def test_a_resumed_run_goes_on_to_the_same_end() -> None:
    saved: list[tuple[int, int]] = []
    run = run_with(saving(saved, checkpoint_factor=2), num_steps=5, step=3, num_samples=12)
    assert saved == [(4, 16), (5, 20)]
    assert run.first_step == 3


def test_a_finished_run_takes_no_step() -> None:
    events = Events()
    run_with(events, num_steps=4, step=4)
    assert events.seen == ["start", "end"]


def test_metrics_hold_the_mean_loss_and_the_speed_of_their_interval() -> None:
    recorder = Recorder()
    run_with(Validation(lambda: math.log(2), interval=3), metrics(recorder, interval=2), num_steps=4)
    assert [step for step, _ in recorder.logged] == [2, 3, 4]
    first, second, last = (values for _, values in recorder.logged)
    assert first["loss"] == (9 + 2.25) / 2
    assert first["grad_norm"] == 3.0
    assert first["learning_rate"] == 0.25
    assert first["tokens"] == 2 * BATCH_SIZE * 8
    assert "validation_loss" not in first
    assert second["validation_loss"] == pytest.approx(0.693147, abs=1e-6)
    assert second["validation_perplexity"] == pytest.approx(2.0)
    for values in (first, second, last):
        rate = values["tokens_per_second"]
        assert rate is not None
        assert rate > 0
        assert values["model_flops_per_second"] == pytest.approx(rate * 100)
        assert values["mfu"] == pytest.approx(rate * 100 / 1e6)
        assert values["mfu_causal"] == pytest.approx(rate * 60 / 1e6)


def test_what_an_evaluation_finds_is_logged_with_its_step() -> None:
    recorder, weights = Recorder(), []

    def measure() -> dict[str, float | None]:
        weights.append(1.0)
        return {"eval/code_go/bits_per_byte": 0.5, "eval/code_go/bits_per_byte_ci95_low": None}

    run_with(Evaluation(measure, interval=3), metrics(recorder, interval=2), num_steps=5)
    assert [step for step, _ in recorder.logged] == [2, 3, 4, 5]
    found = [values.get("eval/code_go/bits_per_byte") for _, values in recorder.logged]
    assert found == [None, 0.5, None, 0.5]
    assert recorder.logged[1][1]["eval/code_go/bits_per_byte_ci95_low"] is None
    assert len(weights) == 2


def test_what_is_no_model_or_about_to_end_is_not_evaluated(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    hooks = (LossGuard(limit=9), ExitInterval(3), Evaluation(lambda: {"eval/x/y": 1.0}, interval=1))
    with caplog.at_level(logging.WARNING):
        run_with(*hooks, metrics(recorder, interval=1), num_steps=9, engine=OneWeight(bad_from=2))
    assert ["eval/x/y" in values for _, values in recorder.logged] == [True, False, False]
    assert caplog.text.count("step 2: not evaluated, for the loss is not a number") == 1


def test_exit_interval_counts_this_process_and_saves() -> None:
    saved: list[tuple[int, int]] = []
    run = run_with(ExitInterval(2), saving(saved), num_steps=9, step=4, num_samples=16)
    assert run.stop == Stop("exit_interval", 0)
    assert saved == [(6, 24)]


def test_a_stop_skips_validation_but_logs_and_saves() -> None:
    recorder, saved = Recorder(), []
    run_with(
        ExitInterval(3),
        Validation(lambda: 1.0, interval=3),
        metrics(recorder, interval=10),
        saving(saved),
        num_steps=9,
    )
    assert [step for step, _ in recorder.logged] == [3]
    assert "validation_loss" not in recorder.logged[0][1]
    assert saved == [(3, 12)]


def test_bad_losses_end_the_run_and_are_never_saved(caplog: pytest.LogCaptureFixture) -> None:
    saved: list[tuple[int, int]] = []
    hooks = (LossGuard(limit=3), saving(saved, checkpoint_factor=1))
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ResourceError, match="3 steps in a row, up to step 4"),
    ):
        run_with(*hooks, num_steps=9, engine=OneWeight(bad_from=2))
    assert saved == [(1, 4)]
    assert "step 2 was skipped: its gradients are not finite" in caplog.text
    assert "step 2: the loss is nan (1 in a row)" in caplog.text
    assert "no checkpoint at step 3: the loss is not a number" in caplog.text


@pytest.mark.parametrize(
    ("keys", "due"),
    [
        ({"checkpoint_factor": 4}, [4, 8, 12, 16]),
        ({"checkpoint_factor": 2, "checkpoint_scale": "log"}, [2, 4, 8, 16]),
        ({"checkpoint_factor": 10, "extra_save_iters": [3, 17]}, [3, 10, 17]),
        ({}, []),
    ],
)
def test_checkpoints_are_due(keys: dict[str, Any], due: Sequence[int]) -> None:
    schedule = CheckpointSchedule(CheckpointConfig.model_validate(keys))
    assert [step for step in range(1, 18) if schedule.is_due(step)] == due
