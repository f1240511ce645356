"""Distributed tests in under a second each: the test process imports everything once, then forks the ranks.

CPU only, since CUDA does not survive a fork; tests/gpu starts processes of its own.
"""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
import queue
import traceback
from collections.abc import Callable
from typing import Any

import torch._dynamo  # noqa: F401  optimizers want it at their first step: here it comes once for all ranks

from megatron.neox.launch.plan import free_port


def run_ranks(
    num_ranks: int, job: Callable[..., Any], *arguments: Any, timeout_seconds: float = 120
) -> list[Any]:
    """Call `job(*arguments)` in `num_ranks` forked processes and return their results, by rank.

    Every rank finds RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_SIZE, MASTER_ADDR and MASTER_PORT in its environment.

    Raises:
        RuntimeError: a rank raised; holds its traceback, and the other ranks are killed.
    """
    ranks, results = start_ranks(num_ranks, job, *arguments)
    values: dict[int, Any] = {}
    try:
        for _ in ranks:
            try:
                rank_number, error, value = results.get(timeout=timeout_seconds)
            except queue.Empty:
                raise RuntimeError(f"no rank answered for {timeout_seconds} s") from None
            if error is not None:
                raise RuntimeError(f"rank {rank_number} failed\n{error}")
            values[rank_number] = value
    finally:
        for rank in ranks:
            if len(values) == num_ranks:
                rank.join(10)
            if rank.is_alive():
                rank.kill()
                rank.join()
    return [values[rank_number] for rank_number in range(num_ranks)]


def start_ranks(num_ranks: int, job: Callable[..., Any], *arguments: Any) -> tuple[list[Any], Any]:
    """Begin what `run_ranks` does; returns the processes, and the queue that gets `(rank, error, value)` of each."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    port = free_port()
    ranks = [
        context.Process(target=_rank_main, args=(rank, num_ranks, port, results, job, arguments), daemon=True)
        for rank in range(num_ranks)
    ]
    # A process group left in garbage here must go here: in a child its end would wait for threads that are not there.
    gc.collect()
    gc.freeze()
    for rank in ranks:
        rank.start()
    gc.unfreeze()
    return ranks, results


def _rank_main(
    rank: int, num_ranks: int, port: int, results: Any, job: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num_ranks),
        LOCAL_SIZE=str(num_ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # DeepSpeed prints the layers of a pipeline
            value = job(*arguments)
        results.put((rank, None, value))
    except BaseException:
        results.put((rank, traceback.format_exc(), None))
