"""A resumed run equals the uninterrupted one: to the bit on the same grid, to rounding on another."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.engine.build import TrainingEngine
from megatron.neox.engine.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.partitions import Partitions
from tests.forked_ranks import run_ranks
from tests.numerics.tiny_run import engine_on, make_config, num_ranks, steps

DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
SAVE_STEP, LAST_STEP = 2, 4


def fingerprint(engine: TrainingEngine) -> str:
    """A digest of every bit of this rank's fp32 weights and optimizer state."""
    partitions = Partitions(engine.deepspeed, engine.grid.groups["data"])
    digest = hashlib.sha256(repr(partitions.state_numbers()).encode())
    for _, layer in engine.owned_layers:
        for parameter in layer.parameters():
            for name in (None, *partitions.state_names()):
                digest.update(partitions.read(parameter, name).cpu().numpy().tobytes())
    return digest.hexdigest()


def save_and_go_on(folder: Path, grid: dict[str, int], keys: dict[str, Any]) -> tuple[list[float], str]:
    """Losses after the save, and what the run ends with."""
    config = make_config(grid, **keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        steps(engine, SAVE_STEP)
        save_checkpoint(engine, folder, state={"step": SAVE_STEP}, config_keys=keys, tokenizer={})
        losses = [result.loss for result in steps(engine, LAST_STEP - SAVE_STEP)]
        return losses, fingerprint(engine)


def resume(folder: Path, grid: dict[str, int], keys: dict[str, Any]) -> tuple[list[float], str]:
    """The same, of a run that begins with the checkpoint."""
    config = make_config(grid, **keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        checkpoint = find_checkpoint(folder, strict=True)
        assert checkpoint is not None
        assert load_checkpoint(engine, checkpoint, weights_only=False) == {"step": SAVE_STEP}
        assert engine.step == SAVE_STEP
        losses = [result.loss for result in steps(engine, LAST_STEP - SAVE_STEP)]
        return losses, fingerprint(engine)


def check_exact(folder: Path, grid: dict[str, int], **keys: Any) -> None:
    straight = run_ranks(num_ranks(grid), save_and_go_on, folder, grid, keys)
    assert run_ranks(num_ranks(grid), resume, folder, grid, keys) == straight


GRIDS = [{}, {"pp": 2}, {"tp": 2}, {"dp": 2}, {"pp": 2, "tp": 2}, {"pp": 2, "dp": 2}, {"tp": 2, "dp": 2}]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_fp32_resumes_to_the_bit_on_every_grid(tmp_path: Path, grid: dict[str, int]) -> None:
    check_exact(tmp_path, grid, **DROPOUT)


@pytest.mark.parametrize("grid", [{}, {"pp": 2}, {"tp": 2}, {"dp": 2}], ids=str)
def test_bf16_resumes_to_the_bit(tmp_path: Path, grid: dict[str, int]) -> None:
    check_exact(tmp_path, grid, precision="bf16", **DROPOUT)


ZERO = [
    {"stage": 2},
    {"stage": 3},
    {"stage": 3, "stage3_param_persistence_threshold": 0},
    {"stage": 2, "offload_optimizer": {"device": "cpu"}},
]


@pytest.mark.parametrize("zero", ZERO, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_zero_stages_resume_to_the_bit(tmp_path: Path, zero: dict[str, Any], precision: str) -> None:
    check_exact(tmp_path, {"dp": 2}, zero_optimization=zero, precision=precision, **DROPOUT)


@pytest.mark.parametrize("grid", [{}, {"pp": 2}, {"dp": 2}], ids=str)
def test_tied_weights_resume_to_the_bit(tmp_path: Path, grid: dict[str, int]) -> None:
    check_exact(tmp_path, grid, no_weight_tying=False, pos_emb="learned", **DROPOUT)


OPTIMIZERS = [
    {"type": "lion", "params": {"lr": 1e-3}},
    {"type": "sgd", "params": {"lr": 0.1, "momentum": 0.9}},
    {"type": "sgd", "params": {"lr": 0.1}},
    {"type": "adafactor", "params": {"lr": 1e-3}},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("stage", [1, 3])
def test_every_optimizer_resumes_to_the_bit(tmp_path: Path, optimizer: dict[str, Any], stage: int) -> None:
    check_exact(tmp_path, {"dp": 2}, optimizer=optimizer, zero_optimization={"stage": stage})


MOVES = [
    ({}, {"pp": 2, "tp": 2}),
    ({"pp": 2, "tp": 2}, {}),
    ({"tp": 2}, {"pp": 2}),
    ({"dp": 2}, {"tp": 2}),
    ({"pp": 2}, {"dp": 2}),
]


@pytest.mark.parametrize(("old", "new"), MOVES, ids=str)
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_another_grid_goes_on_with_the_same_losses(
    tmp_path: Path, old: dict[str, int], new: dict[str, int], activation: str
) -> None:
    keys: dict[str, Any] = {"activation": activation, "num_kv_heads": 2}
    losses = run_ranks(num_ranks(old), save_and_go_on, tmp_path, old, keys)[0][0]
    assert run_ranks(num_ranks(new), resume, tmp_path, new, keys)[0][0] == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 2), (2, 1)])
def test_another_zero_stage_goes_on_with_the_same_losses(tmp_path: Path, old: int, new: int) -> None:
    before, after = {"zero_optimization": {"stage": old}}, {"zero_optimization": {"stage": new}}
    losses = run_ranks(2, save_and_go_on, tmp_path, {"dp": 2}, before)[0][0]
    assert run_ranks(1, resume, tmp_path, {}, after)[0][0] == pytest.approx(losses, abs=1e-5)
