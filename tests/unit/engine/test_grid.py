"""Where each rank stands, and what is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

import megatron.neox.models.gpt_neox  # noqa: F401  megatron-core is imported before ranks are forked
from megatron.neox.config import ParallelismConfig
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.errors import ConfigError
from tests.forked_ranks import run_ranks


def place(pipe_size: int, tensor_size: int) -> tuple[Any, ...]:
    section = ParallelismConfig(pipe_parallel_size=pipe_size, model_parallel_size=tensor_size)
    with ProcessGrid.build(section) as grid:
        grid.barrier()
        grid.deepspeed_topology()  # asserts that DeepSpeed numbers the ranks alike
        sizes = (grid.pipe_size, grid.data_size, grid.tensor_size)
        return (grid.pipe_rank, grid.data_rank, grid.tensor_rank), sizes, grid.is_main


def test_ranks_run_over_tensor_then_data_then_pipe() -> None:
    places = run_ranks(4, place, 2, 2)
    assert [p[0] for p in places] == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]
    assert [p[1] for p in places] == [(2, 1, 2)] * 4
    assert [p[2] for p in places] == [True, False, False, False]


def test_the_data_axis_takes_what_is_left() -> None:
    assert [p[0] for p in run_ranks(4, place, 0, 2)] == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert [p[0] for p in run_ranks(4, place, 2, 1)] == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]


def forget_the_launcher() -> None:
    """A process of its own, as a user starts it; never the tests' own, which forks no more after gloo ran in it."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]


def alone_twice() -> list[tuple[int, int, str]]:
    forget_the_launcher()
    seen = []
    for _ in range(2):  # a second grid finds nothing of the first
        with ProcessGrid.build(ParallelismConfig()) as grid:
            seen.append((grid.rank, grid.world_size, grid.device.type))
            grid.deepspeed_topology()
        assert not torch.distributed.is_initialized()
    assert "LOCAL_RANK" not in os.environ
    return seen


def test_one_process_needs_no_environment_and_leaves_none() -> None:
    assert run_ranks(1, alone_twice)[0] == [(0, 1, "cpu")] * 2


def folded() -> tuple[int, int]:
    section = ParallelismConfig(pipe_parallel_size=2)
    with ProcessGrid.build(section, fold_pipeline=True) as grid:
        return grid.pipe_size, grid.data_size


def test_a_folded_pipeline_leaves_its_ranks_to_the_data_axis() -> None:
    assert run_ranks(2, folded) == [(1, 2)] * 2


def test_processes_that_do_not_divide_are_refused_with_the_keys() -> None:
    section = ParallelismConfig(pipe_parallel_size=2, model_parallel_size=2)
    with pytest.raises(
        ConfigError, match=r"1 process\(es\) do not divide into pipe_parallel_size 2"
    ) as caught:
        ProcessGrid.build(section)
    assert "num_gpus" in str(caught.value)
    assert not torch.distributed.is_initialized()


def ask_for_fp16() -> str:
    with ProcessGrid.build(ParallelismConfig()) as grid:
        try:
            grid.require_dtype("fp16")
        except ConfigError as error:
            return str(error)
    return ""


def test_fp16_on_a_cpu_is_refused_with_the_way_out() -> None:
    assert "--set precision=bf16" in run_ranks(1, ask_for_fp16)[0]


def shim(sequence_parallel: bool) -> tuple[bool, bool]:
    before = torch.cuda.current_device
    section = ParallelismConfig(model_parallel_size=2, sequence_parallel=sequence_parallel)
    with ProcessGrid.build(section):
        during = torch.cuda.current_device
    return during is before, torch.cuda.current_device is before


def test_torch_is_patched_only_while_sequence_parallelism_needs_it() -> None:
    assert run_ranks(2, shim, True)[0] == (False, True)
    assert run_ranks(2, shim, False)[0] == (True, True)


def world_size() -> int:
    with ProcessGrid.build(ParallelismConfig()) as grid:
        return grid.world_size


def test_a_grid_leaves_no_group_behind_for_forked_children() -> None:
    assert world_size() == 1
    assert run_ranks(2, world_size, timeout_seconds=60) == [2, 2]
