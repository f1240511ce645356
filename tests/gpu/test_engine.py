"""The engine on CUDA: the losses of the CPU, fp16 with its loss scale, exact resume. Run by `make test-gpu`."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.neox.launch.plan import free_port
from tests.numerics.test_parallel import GOLDEN
from tests.numerics.test_resume import resume, save_and_go_on
from tests.numerics.tiny_run import num_ranks, run_and_evaluate

pytestmark = pytest.mark.gpu

NUM_LOSSES = 4


def on_gpus(num_gpus: int, job: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call `job` in one new process for each GPU; CUDA does not survive the fork of the other tests."""
    if torch.cuda.device_count() < num_gpus:
        pytest.skip(f"needs {num_gpus} CUDA device(s)")
    port = free_port()
    with ProcessPoolExecutor(num_gpus, mp_context=get_context("spawn")) as pool:
        ranks = [pool.submit(_as_rank, rank, num_gpus, port, job, arguments) for rank in range(num_gpus)]
        return [rank.result(timeout=300) for rank in ranks]


def _as_rank(
    rank: int, num_ranks: int, port: int, job: Callable[..., Any], arguments: tuple[Any, ...]
) -> Any:
    os.environ.pop("DS_ACCELERATOR", None)  # the tests' conftest chooses the CPU
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num_ranks),
        LOCAL_SIZE=str(num_ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    return job(*arguments)


@pytest.mark.parametrize("grid", [{}, {"pp": 2}, {"tp": 2}, {"dp": 2}, {"pp": 2, "tp": 2}], ids=str)
def test_fp32_losses_are_those_of_the_cpu(grid: dict[str, int]) -> None:
    assert on_gpus(num_ranks(grid), run_and_evaluate, grid, {})[0] == pytest.approx(GOLDEN, abs=1e-3)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_bf16_losses_are_near(zero: int) -> None:
    keys = {"precision": "bf16", "zero_optimization": {"stage": zero}}
    losses = on_gpus(1, run_and_evaluate, {}, keys)[0][:NUM_LOSSES]
    assert losses == pytest.approx(GOLDEN[:NUM_LOSSES], abs=2e-2)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_fp16_losses_are_near(zero: int) -> None:
    # A scale of 2 ** 8 overflows nowhere, so that no step is skipped.
    fp16 = {"enabled": True, "initial_scale_power": 8}
    keys = {"fp16": fp16, "zero_optimization": {"stage": zero}}
    losses = on_gpus(1, run_and_evaluate, {}, keys)[0][:NUM_LOSSES]
    assert losses == pytest.approx(GOLDEN[:NUM_LOSSES], abs=2e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("zero", [1, 3])
def test_a_run_resumes_to_the_bit(tmp_path: Path, precision: str, zero: int) -> None:
    # The default scale of 2 ** 16 overflows at first, so that the scaler's state matters.
    keys = {"precision": precision, "hidden_dropout": 0.1, "zero_optimization": {"stage": zero}}
    straight = on_gpus(1, save_and_go_on, tmp_path, {}, keys)
    assert on_gpus(1, resume, tmp_path, {}, keys) == straight
