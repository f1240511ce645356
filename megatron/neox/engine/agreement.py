"""What ranks must agree on, and how they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

from megatron.neox.errors import NeoXError

T = TypeVar("T")


def any_rank(value: int, device: torch.device) -> int:
    """The largest `value` of all ranks."""
    if not _several():
        return value
    largest = torch.tensor(value, device=device)
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return int(largest.item())


def sum_of_ranks(value: float, device: torch.device) -> float:
    """The sum of `value` over all ranks."""
    if not _several():
        return value
    total = torch.tensor(value, device=device, dtype=torch.float64)
    distributed.all_reduce(total)
    return float(total.item())


def on_main_rank(work: Callable[[], T]) -> T:
    """What `work` returns on rank 0, on every rank; a NeoXError that it raises is raised on every rank.

    For work that reads much and gives little, and must not differ from rank to rank.
    """
    if not _several():
        return work()
    outcome: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            outcome[0] = work()
        except NeoXError as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome, src=0)
    result, error = outcome
    if error is not None:
        raise error
    return result


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
