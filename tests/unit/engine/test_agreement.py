from __future__ import annotations

import os

import torch

from megatron.neox.engine.agreement import any_rank, on_main_rank, sum_of_ranks
from megatron.neox.errors import CheckpointError, ConfigError, NeoXError
from tests.forked_ranks import run_ranks

CPU = torch.device("cpu")


def _agree() -> tuple[int, float, str]:
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group("gloo")
    values = any_rank(rank, CPU), sum_of_ranks(0.5 * rank, CPU), on_main_rank(lambda: f"rank {rank}")
    torch.distributed.destroy_process_group()
    return values


def test_ranks_agree() -> None:
    assert run_ranks(3, _agree) == [(2, 1.5, "rank 0")] * 3


def test_one_process_agrees_with_itself() -> None:
    assert (any_rank(3, CPU), sum_of_ranks(0.5, CPU), on_main_rank(lambda: "own")) == (3, 0.5, "own")


def _fail(error: NeoXError) -> str:
    def work() -> str:
        raise error

    torch.distributed.init_process_group("gloo")
    try:
        return on_main_rank(work)
    except NeoXError as met:
        return f"{type(met).__name__} {met}"
    finally:
        torch.distributed.destroy_process_group()


def test_what_rank_0_raises_is_raised_by_all() -> None:
    assert run_ranks(2, _fail, CheckpointError("damaged")) == ["CheckpointError damaged"] * 2
    assert run_ranks(2, _fail, ConfigError(["one", "two"])) == ["ConfigError one\ntwo"] * 2
