"""Every way to lay the model over processes computes the same losses on the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.neox.engine.grid import ProcessGrid
from tests.forked_ranks import run_ranks
from tests.numerics.tiny_run import batches, engine_on, make_config, num_ranks, run_and_evaluate

# One process, fp32: losses and gradient norms of 4 steps, and the loss of an evaluation.
GOLDEN = [5.542208, 5.376402, 5.386069, 5.274127, 1.725178, 1.827885, 1.797288, 1.459289, 5.364713]


def run(grid: dict[str, int], **keys: Any) -> list[float]:
    return run_ranks(num_ranks(grid), run_and_evaluate, grid, keys)[0]


@pytest.fixture(scope="module")
def untied() -> list[float]:
    return run({})


def test_one_process_gives_the_golden_losses(untied: list[float]) -> None:
    assert untied == pytest.approx(GOLDEN, abs=1e-5)


@pytest.mark.parametrize(
    "grid",
    [{"pp": 2}, {"tp": 2}, {"dp": 2}, {"pp": 2, "tp": 2}, {"pp": 2, "dp": 2}, {"tp": 2, "dp": 2}],
    ids=str,
)
def test_a_grid_gives_the_losses_of_one_process(grid: dict[str, int], untied: list[float]) -> None:
    assert run(grid) == pytest.approx(untied, abs=1e-5)


@pytest.mark.parametrize("grid", [{"pp": 2}, {"tp": 2}, {"pp": 2, "tp": 2}, {"dp": 2}], ids=str)
@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_tied_weights_agree_on_every_grid(grid: dict[str, int], position: str) -> None:
    keys = {"no_weight_tying": False, "pos_emb": position}
    assert run(grid, **keys) == pytest.approx(run({}, **keys), abs=1e-5)


# With a threshold of 0, ZeRO 3 partitions the small weights too.
ZERO = [{"stage": 0}, {"stage": 2}, {"stage": 3}, {"stage": 3, "stage3_param_persistence_threshold": 0}]


@pytest.mark.parametrize("zero", ZERO, ids=str)
@pytest.mark.parametrize("grid", [{}, {"dp": 2}, {"tp": 2}, {"tp": 2, "dp": 2}], ids=str)
def test_zero_stages_agree(zero: dict[str, int], grid: dict[str, int], untied: list[float]) -> None:
    assert run(grid, zero_optimization=zero) == pytest.approx(untied, abs=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_offloaded_optimizer_agrees(stage: int, untied: list[float]) -> None:
    zero = {"stage": stage, "offload_optimizer": {"device": "cpu"}}
    assert run({"dp": 2}, zero_optimization=zero) == pytest.approx(untied, abs=1e-5)


@pytest.mark.parametrize("zero", ZERO[1:], ids=str)
def test_zero_stages_agree_with_tied_weights(zero: dict[str, int]) -> None:
    tied = {"no_weight_tying": False, "pos_emb": "learned"}
    ours = run({"dp": 2}, zero_optimization=zero, **tied)
    assert ours == pytest.approx(run({}, **tied), abs=1e-5)


@pytest.mark.parametrize("zero", ZERO[1:], ids=str)
def test_zero_stages_agree_with_sequence_parallel(zero: dict[str, int], untied: list[float]) -> None:
    ours = run({"tp": 2, "dp": 2}, zero_optimization=zero, sequence_parallel=True)
    assert ours == pytest.approx(untied, abs=1e-5)


@pytest.mark.parametrize("grid", [{"tp": 2}, {"pp": 2, "tp": 2}, {"tp": 2, "dp": 2}], ids=str)
def test_sequence_parallel_agrees(grid: dict[str, int], untied: list[float]) -> None:
    assert run(grid, sequence_parallel=True) == pytest.approx(untied, abs=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_sequence_parallel_agrees_with_learned_positions(tied: bool) -> None:
    keys = {"no_weight_tying": not tied, "pos_emb": "learned"}
    ours = run({"pp": 2, "tp": 2}, sequence_parallel=True, **keys)
    assert ours == pytest.approx(run({}, **keys), abs=1e-5)


@pytest.mark.parametrize("grid", [{}, {"pp": 2}, {"tp": 2}], ids=str)
@pytest.mark.parametrize("interval", [1, 2])
def test_recomputed_activations_change_nothing(grid: dict[str, int], interval: int) -> None:
    keys = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    recomputed = run(grid, checkpoint_activations=True, checkpoint_num_layers=interval, **keys)
    assert recomputed == run(grid, **keys)


def one_large_batch() -> list[float]:
    """Losses of two steps whose four micro-batches come as one."""
    config = make_config({}, train_micro_batch_size_per_gpu=8, gradient_accumulation_steps=1)

    def joined() -> Iterator[tuple[Tensor, Tensor]]:
        small = batches(0, 1)
        while True:
            four = [next(small) for _ in range(4)]
            yield torch.cat([ids for ids, _ in four]), torch.cat([labels for _, labels in four])

    with ProcessGrid.build(config.parallelism) as grid:
        engine, stream = engine_on(grid, config), joined()
        return [engine.train_step(stream).loss for _ in range(2)]


def test_accumulated_micro_batches_equal_one_large_batch(untied: list[float]) -> None:
    assert run_ranks(1, one_large_batch)[0] == pytest.approx(untied[:2], abs=1e-5)
