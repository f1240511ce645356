"""The training engine beyond its losses: counts, steps that are skipped, seeds."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import pytest
import torch

from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.seeds import seed_step
from tests.forked_ranks import run_ranks
from tests.numerics.tiny_run import engine_on, make_config, num_ranks, steps


def count(grid: dict[str, int], keys: dict[str, Any]) -> int:
    config = make_config(grid, **keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        return engine_on(process_grid, config).num_parameters


# 4 layers of 12 * 64^2 + 13 * 64, a norm of 2 * 64, and one or two tables of 256 * 64.
@pytest.mark.parametrize(("keys", "expected"), [({}, 232832), ({"no_weight_tying": False}, 216448)])
@pytest.mark.parametrize("grid", [{}, {"pp": 2}, {"tp": 2}, {"dp": 2}], ids=str)
def test_parameters_are_counted_once_on_every_grid(
    grid: dict[str, int], keys: dict[str, Any], expected: int
) -> None:
    assert run_ranks(num_ranks(grid), count, grid, keys) == [expected] * num_ranks(grid)


def test_parameters_partitioned_by_zero_3_are_counted() -> None:
    assert run_ranks(2, count, {"dp": 2}, {"zero_optimization": {"stage": 3}}) == [232832] * 2


def break_the_gradient(grid: dict[str, int], keys: dict[str, Any]) -> tuple[bool, bool, int, bool]:
    """Whether a step was skipped and left the weights alone, the step count, and whether the next one worked."""
    config = make_config(grid, **keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        steps(engine, 1)
        layer = engine.owned_layers[-1][1]
        parameter = next(layer.parameters())
        before = parameter.detach().clone()
        hook = parameter.register_hook(lambda gradient: gradient * float("nan"))
        broken = steps(engine, 1)[0]
        same = torch.equal(before, parameter.detach())
        hook.remove()
        following = steps(engine, 1)[0]
        return broken.skipped, same, engine.step, not following.skipped


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("grid", [{}, {"pp": 2}, {"dp": 2}], ids=str)
def test_a_gradient_that_is_no_number_skips_the_step(grid: dict[str, int], precision: str) -> None:
    outcomes = run_ranks(num_ranks(grid), break_the_gradient, grid, {"precision": precision})
    assert outcomes == [(True, True, 3, True)] * num_ranks(grid)


def said_on_the_way(keys: dict[str, Any]) -> str:
    """What building an engine and a step print and log."""
    config = make_config({}, **keys)
    heard = io.StringIO()
    logging.getLogger().handlers[:] = [logging.StreamHandler(heard)]
    with contextlib.redirect_stdout(heard), ProcessGrid.build(config.parallelism) as process_grid:
        steps(engine_on(process_grid, config), 1)
    return heard.getvalue()


@pytest.mark.parametrize(
    "keys",
    [
        {"precision": "bf16"},
        {"zero_optimization": {"stage": 3}},
        {"optimizer": {"type": "lion", "params": {"lr": 1e-4}}},
    ],
    ids=str,
)
def test_deepspeed_says_nothing_that_nobody_asked_for(keys: dict[str, Any]) -> None:
    assert run_ranks(1, said_on_the_way, keys) == [""]


def draws(seed: int, step: int, data_rank: int, pipe_rank: int) -> float:
    seed_step(seed, step, data_rank=data_rank, pipe_rank=pipe_rank)
    return torch.rand(()).item()


def test_dropout_is_a_function_of_seed_step_and_place() -> None:
    places = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    first = [draws(*place) for place in places]
    assert [draws(*place) for place in places] == first
    assert len(set(first)) == len(places)
