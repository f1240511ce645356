"""Saving and loading: logical tensors, so that any grid and ZeRO stage reads what any other wrote.

::

    SAVE/
      latest                                     "global_step1000"
      global_step1000/
        layer_02-model_00-model_states.pt        weights in the training's format, GPT-NeoX's names
        layer_02-model_00-optim_states.pt        {"fp32": weights, "exp_avg": ..., ...}, by the same names
        configs/config.yml                       every key in force
        manifest.json                            step, architecture, checksums; written last

The folder is written as `global_step1000.tmp` and renamed when it is whole; then `latest` is replaced. No
random state is saved (`seeds.py`), and no pickled object: everything loads with weights_only=True.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, distributed, nn

from megatron.neox.engine.build import TrainingEngine
from megatron.neox.engine.completeness import all_differences, refuse_other_layers
from megatron.neox.engine.partitions import Partitions
from megatron.neox.engine.weights import layouts_of, owner_number, read_weights
from megatron.neox.errors import CheckpointError, ResourceError
from megatron.neox.layouts import neox
from megatron.neox.layouts.architecture import check_architecture, describe_architecture
from megatron.neox.layouts.checkpoint_folder import (
    clear_leftovers,
    find_checkpoint,
    prune_checkpoints,
    publish,
    temporary_folder,
)
from megatron.neox.layouts.manifest import NAME, FileRecord, Manifest
from megatron.neox.models.plan import LayerPlan
from megatron.neox.plugins import ENTRY_POINT_GROUP

log = logging.getLogger(__name__)

__all__ = ["clear_leftovers", "find_checkpoint", "load_checkpoint", "prune_checkpoints", "save_checkpoint"]

MASTER = "fp32"
"""Name of the fp32 weights among the state tensors."""

_AXES = {
    "pipe_parallel_size": "pp",
    "model_parallel_size": "tp",
    "data_parallel_size": "dp",
    "zero_stage": "ZeRO",
}

# What DeepSpeed's dynamic loss scaler remembers; a fixed one has the first of them only.
_LOSS_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


def optimizer_file(number: int, tensor_rank: int) -> str:
    """Name of a layer's optimizer state."""
    return neox.weights_file(number, tensor_rank).replace("model_states", "optim_states")


def save_checkpoint(
    engine: TrainingEngine,
    folder: Path,
    *,
    state: dict[str, Any],
    config_keys: Mapping[str, Any],
    tokenizer: dict[str, Any],
) -> Path:
    """Write `folder/global_stepN`, N the engine's step; all ranks call this together, on a shared disk.

    At no time is more than one layer gathered.

    Args:
        engine: what to save.
        folder: the `save` folder.
        state: what the training loop wants back; JSON values.
        config_keys: the YAML keys in force, for configs/config.yml.
        tokenizer: fingerprint of the tokenizer that made the data.

    Raises:
        ResourceError: a rank could not write; nothing is left behind.
    """
    final = folder / neox.step_folder(engine.step)
    temporary = temporary_folder(final)
    with _failing_together(temporary, is_main=engine.grid.is_main):
        if engine.grid.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            (temporary / "configs").mkdir(parents=True)
    writer = _Writer(temporary, is_active=engine.grid.data_rank == 0)
    if engine.grid.is_main:
        text = yaml.safe_dump(dict(config_keys), sort_keys=True, allow_unicode=True)
        writer.write("configs/config.yml", lambda file: file.write(text.encode()))
    partitions = Partitions(engine.deepspeed, engine.grid.groups["data"])
    for plan, layer in engine.owned_layers:
        _save_layer(engine, partitions, plan, layer, writer)
    with _failing_together(temporary, is_main=engine.grid.is_main):
        if writer.error is not None:
            raise writer.error
    files = _gather_records(writer.records)
    manifest = _manifest(engine, partitions, state=state, tokenizer=tokenizer, files=files)
    with _failing_together(temporary, is_main=engine.grid.is_main):
        if engine.grid.is_main:
            manifest.write(temporary)
            publish(temporary, final)
    return final


def load_checkpoint(engine: TrainingEngine, checkpoint: Path, *, weights_only: bool) -> dict[str, Any]:
    """Fill the engine from a `global_stepN` folder; all ranks call this together. Returns the saved `state`.

    The engine stands at the checkpoint's step afterwards, or at 0 where the config says `finetune`.

    Args:
        engine: a fresh engine, on any grid.
        checkpoint: what `find_checkpoint` returned.
        weights_only: leave the optimizer's state behind.

    Raises:
        CheckpointError: it is of another architecture or optimizer, or a file is missing or damaged.
    """
    manifest = Manifest.read(checkpoint) if (checkpoint / NAME).exists() else None
    if manifest is not None:
        wanted = describe_architecture(engine.config.model, engine.padded_vocab_size)
        check_architecture(manifest.architecture, wanted, checkpoint)
        _log_resharding(manifest.layout, engine)
    elif not engine.config.checkpoint.finetune:
        raise CheckpointError(
            f"{checkpoint} has no {NAME}: it was not written by this software, and only its weights can be "
            "used; give finetune: true to begin at step 0 with them"
        )
    else:
        refuse_other_layers(checkpoint, engine.config.model, engine.plans, size=engine.grid.tensor_size)
    with_state = not weights_only
    if with_state:
        _check_optimizer(engine, manifest, checkpoint)
    partitions = Partitions(engine.deepspeed, engine.grid.groups["data"])
    names: list[str] = []
    if with_state and manifest is not None and manifest.optimizer is not None:
        names = manifest.optimizer["tensors"]
        if names or manifest.optimizer["numbers"]:
            partitions.create_state(names, manifest.optimizer["numbers"])
        _restore_loss_scaler(engine, manifest.loss_scaler)
    try:
        for plan, layer in engine.local_layers():
            _load_layer(engine, partitions, plan, layer, checkpoint, names=names, with_state=with_state)
    except CheckpointError as first:
        raise all_differences(checkpoint, engine.plans, size=engine.grid.tensor_size) or first from None
    partitions.refresh_weights()
    if manifest is None:
        return {}
    engine.step = 0 if engine.config.checkpoint.finetune else manifest.step
    engine.deepspeed.global_steps = engine.step
    return manifest.state


class _Writer:
    """Writes tensors into files and keeps their checksums; after a failure it does nothing more.

    Its rank goes on taking part in collectives, where the others would otherwise wait for ever.
    """

    def __init__(self, folder: Path, *, is_active: bool) -> None:
        self.folder = folder
        self.is_active = is_active
        self.records: dict[str, FileRecord] = {}
        self.error: Exception | None = None

    def save(self, name: str, content: Any) -> None:
        """Write what torch saves of `content`."""
        self.write(name, lambda file: torch.save(content, file))

    def write(self, name: str, put: Callable[[Any], object]) -> None:
        """Write one file and wait until it lies on the disk; `put` is handed it."""
        if not self.is_active or self.error is not None:
            return
        try:
            with (self.folder / name).open("wb") as file:
                hashing = _HashingFile(file)
                put(hashing)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.error = error
        except RuntimeError as error:
            # torch says of a file's errors only that writing failed; what the system said stands behind it.
            self.error = error.__context__ if isinstance(error.__context__, OSError) else error
        else:
            self.records[name] = FileRecord(hashing.size, hashing.digest.hexdigest())


class _HashingFile:
    """A file that is written once from start to end, hashed on the way."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _save_layer(
    engine: TrainingEngine, partitions: Partitions, plan: LayerPlan, layer: nn.Module, writer: _Writer
) -> None:
    """Gather and write one layer's weights and optimizer state; all data ranks call this together."""
    names = partitions.state_names()
    weights: dict[str, Tensor] = {}
    state: dict[str, dict[str, Tensor]] = {name: {} for name in (MASTER, *names)}
    with_state = not engine.config.checkpoint.no_save_optim
    for key, parameter in layer.named_parameters():
        is_exact = parameter.dtype == torch.float32  # then the weights file holds the fp32 weights already
        if partitions.is_stage_3 or (with_state and not is_exact):
            master = partitions.read(parameter).cpu()
            weights[key] = master.to(parameter.dtype)
            if not is_exact:
                state[MASTER][key] = master
        if not partitions.is_stage_3:
            weights[key] = parameter.detach().cpu().clone()
        for name in names if with_state else ():
            state[name][key] = partitions.read(parameter, name).cpu()
    writer.save(neox.weights_file(plan.number, engine.grid.tensor_rank), weights)
    if with_state:
        writer.save(optimizer_file(plan.number, engine.grid.tensor_rank), state)


def _load_layer(
    engine: TrainingEngine,
    partitions: Partitions,
    plan: LayerPlan,
    layer: nn.Module,
    checkpoint: Path,
    *,
    names: list[str],
    with_state: bool,
) -> None:
    """Read one layer's tensors into this rank's shard and fragments."""
    number = owner_number(plan, engine.plans)
    rank, size = engine.grid.tensor_rank, engine.grid.tensor_size
    weights = read_weights(checkpoint, number, layer, rank=rank, size=size)
    state: dict[str, dict[str, Tensor]] = {}
    if with_state:
        num_writers = neox.tensor_size_of(checkpoint, number)
        files = {writer: optimizer_file(number, writer) for writer in range(num_writers)}
        state = neox.read_state(checkpoint, files, layouts_of(layer), rank=rank, size=size)
    for key, parameter in layer.named_parameters():
        partitions.write(parameter, state.get(MASTER, {}).get(key, weights[key]))
        for name in names:
            partitions.write(parameter, state[name][key], name)


def _manifest(
    engine: TrainingEngine,
    partitions: Partitions,
    *,
    state: dict[str, Any],
    tokenizer: dict[str, Any],
    files: dict[str, FileRecord],
) -> Manifest:
    config, grid = engine.config, engine.grid
    optimizer = {
        "name": config.optimizer.optimizer.name,
        "tensors": partitions.state_names(),
        "numbers": partitions.state_numbers(),
    }
    scaler = getattr(engine.deepspeed.optimizer, "loss_scaler", None)
    return Manifest(
        step=engine.step,
        architecture=describe_architecture(config.model, engine.padded_vocab_size),
        precision=config.precision.dtype,
        tensor_size=grid.tensor_size,
        optimizer=None if config.checkpoint.no_save_optim else optimizer,
        loss_scaler={name: float(getattr(scaler, name)) for name in _LOSS_SCALER if hasattr(scaler, name)},
        tokenizer=tokenizer,
        plugins=[*config.training.plugins, *_installed_plugins()],
        layout=_grid(engine),
        state=state,
        files=files,
    )


def _grid(engine: TrainingEngine) -> dict[str, int]:
    return {
        "pipe_parallel_size": engine.grid.pipe_size,
        "model_parallel_size": engine.grid.tensor_size,
        "data_parallel_size": engine.grid.data_size,
        "zero_stage": engine.deepspeed.zero_optimization_stage(),
    }


def _log_resharding(saved: Mapping[str, int], engine: TrainingEngine) -> None:
    """Say what is laid over which grid, where it is another one than the checkpoint was saved on."""
    here = _grid(engine)
    if saved.keys() == here.keys() and saved != here:
        old, new = (", ".join(f"{name} {grid[key]}" for key, name in _AXES.items()) for grid in (saved, here))
        log.info("resharding: from %s to %s", old, new)


@functools.cache  # it opens a file of every installed package
def _installed_plugins() -> list[str]:
    """Installed packages that bring parts, as `name version`."""
    entries = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    return sorted({f"{entry.dist.name} {entry.dist.version}" for entry in entries if entry.dist})


def _restore_loss_scaler(engine: TrainingEngine, saved: Mapping[str, float]) -> None:
    scaler = getattr(engine.deepspeed.optimizer, "loss_scaler", None)
    if engine.config.precision.dtype != "fp16" or scaler is None:
        return
    for name, value in saved.items():
        if hasattr(scaler, name):
            setattr(scaler, name, value if name == "cur_scale" else int(value))


def _check_optimizer(engine: TrainingEngine, manifest: Manifest | None, checkpoint: Path) -> None:
    """Refuse to resume without the optimizer's state, or with another optimizer's."""
    name = engine.config.optimizer.optimizer.name
    if manifest is None or manifest.optimizer is None:
        raise CheckpointError(
            f"{checkpoint} holds weights only and cannot be resumed exactly; give no_load_optim: true to go "
            "on with a fresh optimizer, or finetune: true to begin at step 0"
        )
    found = manifest.optimizer["name"]
    same = {"adam": "adamw"}  # two names of one optimizer
    if same.get(found, found) != same.get(name, name):
        raise CheckpointError(
            f"{checkpoint} holds the state of the optimizer {found}, and the config asks for {name}; "
            "give no_load_optim: true to begin with a fresh state"
        )


def _gather_records(own: dict[str, FileRecord]) -> dict[str, FileRecord]:
    """The records of all ranks' files, on every rank."""
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, own)
    return {name: record for records in gathered for name, record in records.items()}


@contextlib.contextmanager
def _failing_together(temporary: Path, *, is_main: bool) -> Any:
    """Turn one rank's failure to write into an error on all of them, and leave nothing half-written.

    Raises:
        ResourceError: some rank's block raised OSError or RuntimeError.
    """
    message = None
    try:
        yield
    except (OSError, RuntimeError) as error:
        message = f"{type(error).__name__}: {error}"
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, message)
    failures = [failure for failure in gathered if failure is not None]
    if failures:
        if is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise ResourceError(
            f"the checkpoint {temporary.with_suffix('')} could not be written: {failures[0]}\n"
            "  make room and see that the folder can be written (keep_last_n_checkpoints keeps fewer); started again, "
            "the run goes on from its newest checkpoint"
        )
