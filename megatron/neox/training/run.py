"""One training run, from a config to its last checkpoint: what `train.py` calls on every rank."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.config import Config
from megatron.neox.config.batch import resolve
from megatron.neox.config.parameters import flops_per_token
from megatron.neox.engine.agreement import on_main_rank, sum_of_ranks
from megatron.neox.engine.build import TrainingEngine, build_training_engine
from megatron.neox.engine.checkpoint import clear_leftovers, prune_checkpoints, save_checkpoint
from megatron.neox.engine.distributed import setup_logging
from megatron.neox.engine.grid import DTYPES, ProcessGrid
from megatron.neox.errors import ConfigError
from megatron.neox.monitors import Monitor, close_monitors, start_monitors
from megatron.neox.plugins import hooks as hook_registry
from megatron.neox.training.checkpoints import Checkpoints, CheckpointSchedule
from megatron.neox.training.hook import Hook, Run
from megatron.neox.training.inputs import TrainingData, find_vocabulary
from megatron.neox.training.limits import ExitInterval
from megatron.neox.training.loop import train
from megatron.neox.training.losses import LossGuard
from megatron.neox.training.metrics import Metrics
from megatron.neox.training.resume import Position, find_start
from megatron.neox.training.run_folder import RunFolder
from megatron.neox.training.signals import StopSignals
from megatron.neox.training.throughput import Throughput, device_peak
from megatron.neox.training.validation import Evaluation, Measured, PrepareEvaluation, Validation

log = logging.getLogger(__name__)


def run(config: Config, prepare_evaluation: PrepareEvaluation | None = None) -> int:
    """Train as `config` says; returns the exit code: 0 done, 128 plus a signal's number when one ended it.

    Args:
        prepare_evaluation: makes what eval_tasks_interval asks for; needed where it does.

    Raises:
        UserError: something in the config, the data or the checkpoint is wrong; every rank raises it.
        ResourceError: the loss has not been a number for too long.
    """
    if config.training.train_iters is None:
        raise ConfigError(["train_iters is missing: the number of optimizer steps"])
    with ExitStack() as stack:
        grid = stack.enter_context(ProcessGrid.build(config.parallelism))
        setup_logging(grid.rank, config.logging.log_dir)
        keys = config.given()  # as given: a resumed run may have another number of ranks
        config = resolve(config, data_size=grid.data_size)
        if config.checkpoint.save is None:
            log.info("nothing will be saved: the key save names no folder")
        else:
            folder = Path(config.checkpoint.save)
            stack.enter_context(RunFolder(folder, is_main=grid.is_main, device=grid.device))
            on_main_rank(lambda: clear_leftovers(folder))
        start = on_main_rank(lambda: find_start(config.checkpoint))  # it reads whole checkpoints
        vocabulary = find_vocabulary(config, start.checkpoint)
        measure = None
        if config.training.eval_tasks_interval:
            assert prepare_evaluation is not None, "the door hands in evaluation"
            measure = prepare_evaluation(config, grid)
        data = TrainingData(config, grid, vocabulary)
        engine = build_training_engine(config, grid, padded_vocab_size=vocabulary.padded_size)
        log.info("%s parameters, processes: %d", f"{engine.num_parameters:,}", grid.world_size)
        return _Training(config, keys, engine, data, measure).run(
            start.load(engine, batch_size=data.batch_size), stack
        )


@dataclass(frozen=True)
class _Training:
    """All that a run is made of, once it is built."""

    config: Config
    keys: dict[str, Any]
    engine: TrainingEngine
    data: TrainingData
    measure: Callable[[TrainingEngine], Measured] | None

    def run(self, position: Position, stack: ExitStack) -> int:
        """Train from `position` on; returns the exit code."""
        monitors = self._start_monitors(position) if self.engine.grid.is_main else []
        stack.callback(close_monitors, monitors)
        batches = self.data.training_batches(position)
        signals = StopSignals(self.engine.grid.device)
        signals.install()
        stack.callback(signals.restore)
        run = Run(
            self.engine,
            hooks=self._hooks(monitors, signals),
            num_steps=self.data.num_steps,
            batch_size=self.data.batch_size,
            step=position.step,
            num_samples=position.num_samples,
        )
        if run.is_last_step:
            log.info(
                "nothing to do: step %d of %d is reached; a larger train_iters goes on",
                run.step,
                run.num_steps,
            )
        train(run, batches)
        return run.stop.exit_code if run.stop else 0

    def _start_monitors(self, position: Position) -> list[Monitor]:
        save = self.config.checkpoint.save
        return start_monitors(
            self.config.logging,
            folder=Path(save) if save else None,
            first_step=position.step,
            num_steps=self.data.num_steps,
            config_keys=self.keys,
        )

    def _hooks(self, monitors: list[Monitor], signals: StopSignals) -> list[Hook]:
        """In this order: what ends a run comes first, so that metrics and checkpoint see its last step.

        Tasks run much that is not ours, so a checkpoint that is due with them is written before them: whatever ends
        them, the run goes on from there.
        """
        section = self.config.training
        hooks: list[Hook] = [LossGuard(limit=section.stop_after_bad_losses), signals]
        if section.exit_interval is not None:
            hooks.append(ExitInterval(section.exit_interval))
        if self.data.has_validation:
            hooks.append(Validation(self._evaluate, interval=section.eval_interval))
            if self.data.validation_names:
                hooks.append(Evaluation(self._evaluate_each, interval=section.eval_interval))
        elif section.eval_interval:
            log.info("no validation: the data has no validation part")
        hooks += [hook_registry.build(choice.name, options=choice.options) for choice in section.hooks]
        save = self.config.checkpoint.save
        checkpoints = [] if save is None else [self._checkpoints(Path(save))]
        interval, seq_length = _log_interval(self.config), self.config.model.seq_length
        metrics = Metrics(monitors, self._throughput(), interval=interval, seq_length=seq_length)
        if (measure := self.measure) is None:
            return [*hooks, metrics, *checkpoints]
        tasks = Evaluation(lambda: measure(self.engine), interval=section.eval_tasks_interval)
        return [*hooks, *checkpoints, tasks, metrics]

    def _evaluate(self) -> float:
        num_batches = self.config.training.eval_iters * self.data.accumulation
        return self.engine.evaluate(self.data.validation_batches(), num_batches)

    def _evaluate_each(self) -> Measured:
        """The loss of each validation dataset, which share the batches of a validation among them."""
        names = self.data.validation_names
        num_batches = self.data.batches_each * self.data.accumulation
        return {
            f"validation_loss/{name}": self.engine.evaluate(self.data.validation_batches(name), num_batches)
            for name in names
        }

    def _throughput(self) -> Throughput:
        grid, model, size = self.engine.grid, self.config.model, self.engine.padded_vocab_size
        grid.barrier()  # ranks that measure do so at once
        given = self.config.logging.peak_flops_per_second
        peak = device_peak(grid.device, DTYPES[self.config.precision.dtype], given=given)
        total = sum_of_ranks(peak.flops_per_second, grid.device)
        log.info("MFU is relative to %.3e FLOP/s of %d device(s): %s", total, grid.world_size, peak.source)
        return Throughput(flops_per_token(model, size), flops_per_token(model, size, causal=True), total)

    def _checkpoints(self, folder: Path) -> Checkpoints:
        keep = self.config.checkpoint.keep_last_n_checkpoints

        def save(state: dict[str, Any]) -> Path:
            state = {**state, **self.data.state(state["num_samples"])}
            tokenizer = self.data.vocabulary.fingerprint
            return save_checkpoint(
                self.engine, folder, state=state, config_keys=self.keys, tokenizer=tokenizer
            )

        def prune() -> None:
            if keep is not None and self.engine.grid.is_main:
                prune_checkpoints(folder, keep)

        return Checkpoints(CheckpointSchedule(self.config.checkpoint), save=save, prune=prune)


def _log_interval(config: Config) -> int:
    section = config.training
    if section.steps_per_print is not None and "log_interval" not in section.model_fields_set:
        return section.steps_per_print
    return section.log_interval
