"""Where a run begins: fresh, from a checkpoint's step, or fresh with a checkpoint's weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.neox.config import CheckpointConfig
from megatron.neox.engine.checkpoint import find_checkpoint, load_checkpoint
from megatron.neox.errors import CheckpointError, OutputError
from megatron.neox.layouts.checkpoint_folder import damaged_steps
from megatron.neox.layouts.neox import step_folder, step_of, steps_in

if TYPE_CHECKING:
    from megatron.neox.engine.build import TrainingEngine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """How far a run has come: optimizer steps and training samples."""

    step: int = 0
    num_samples: int = 0
    sample_order: str | None = None  # identity of the order that the samples were counted in
    stream: dict[str, Any] | None = None  # how far a stream was read, where the samples came from one


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run begins with, if any."""

    checkpoint: Path | None = None
    finetune: bool = False  # its weights alone count, and the run begins at step 0
    weights_only: bool = False  # the optimizer begins anew

    @property
    def step(self) -> int:
        """Step at which the run begins, as the checkpoint's name says."""
        step = 0 if self.checkpoint is None or self.finetune else step_of(self.checkpoint.name)
        assert step is not None, self.checkpoint
        return step

    def load(self, engine: TrainingEngine, *, batch_size: int) -> Position:
        """Fill the engine from the checkpoint; returns where the run goes on.

        Args:
            batch_size: samples in a step, for checkpoints that do not tell how many were read.

        Raises:
            CheckpointError: it is of another architecture or optimizer, or damaged.
        """
        if self.checkpoint is None:
            return Position()
        state = load_checkpoint(engine, self.checkpoint, weights_only=self.weights_only or self.finetune)
        engine.step = self.step
        if self.finetune:
            log.info("step 0 begins with the weights of %s", self.checkpoint)
            return Position()
        log.info(
            "resumed from %s%s", self.checkpoint, ", without optimizer state" if self.weights_only else ""
        )
        num_samples = int(state.get("num_samples", self.step * batch_size))
        return Position(self.step, num_samples, state.get("sample_order"), state.get("stream"))


def find_start(section: CheckpointConfig) -> Start:
    """Look for the checkpoint that `load` names; an absent or empty folder means a fresh start, and is said.

    Raises:
        CheckpointError: the folder holds something, but no intact checkpoint; or there is none to finetune.
        OutputError: the save folder holds steps that this run would write over.
    """
    checkpoint = None
    if section.load is not None:
        # A start with weights that are not there would be one with random weights.
        checkpoint = find_checkpoint(
            Path(section.load),
            iteration=section.iteration,
            strict=section.finetune,
            fallback=section.load_fallback,
            weights_only=section.finetune or section.no_load_optim,
        )
        if checkpoint is None:
            _refuse_other_files(Path(section.load), section)
            log.info("fresh start: there is no checkpoint in %s", section.load)
    start = Start(checkpoint, section.finetune, section.no_load_optim)
    if section.save is not None:
        _refuse_later_steps(Path(section.save), start, section)
    return start


def _refuse_other_files(folder: Path, section: CheckpointConfig) -> None:
    """A `load` folder full of something else is a slip; the run's own `save` folder may hold logs already."""
    if _continues_in_place(section) or not folder.exists():
        return
    if names := sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]:
        raise CheckpointError(
            f"load: {folder} holds no checkpoint, but other files ({names[0]}); give the folder that holds "
            "global_step*, or remove load to start afresh"
        )


def _refuse_later_steps(folder: Path, start: Start, section: CheckpointConfig) -> None:
    """A run never writes over steps it has not read, such as those of another run.

    What stands behind the newest intact checkpoint is damaged, and may be written over.
    """
    in_place = _continues_in_place(section) and not section.finetune
    later = [step for step in (steps_in(folder) if folder.is_dir() else {}) if step > start.step]
    if (in_place and section.iteration is None) or not later:
        return
    if in_place and damaged_steps(folder, after=start.step) == later:
        names = ", ".join(map(step_folder, later))
        log.warning("%s in %s is damaged: this run will write over it", names, folder)
        return
    changes = [] if _continues_in_place(section) else [f"load: {folder}"]
    changes += ["finetune: false"] if section.finetune else []
    resume = f"; give {' and '.join(changes)} to go on from there" if changes else ""
    raise OutputError(
        f"the save folder {folder} holds global_step{max(later)}, but this run begins at step "
        f"{start.step}{resume}; else give another save folder, or move its later checkpoints away"
    )


def _continues_in_place(section: CheckpointConfig) -> bool:
    """Whether `load` and `save` are one folder, however they are written."""
    if section.load is None or section.save is None:
        return False
    return Path(section.load).resolve() == Path(section.save).resolve()
