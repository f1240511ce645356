"""What we use of megatron-core, imported without what it brings along and we never call.

Its import compiles fused kernels, for which torch's compiler comes into the process, and looks for wandb's client: of
4.2 s of processor time that a process needs until it has torch and megatron-core, these were 2.0. None of the fused
functions is called here (`docs/log.md`). A plugin that calls one gets it uncompiled, as after megatron-core's
`disable_jit_fuser`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from megatron.neox.imports import absent


@contextmanager
def lean_imports() -> Iterator[None]:
    """Let `torch.compile` give back what it is given, and wandb be absent, while others' modules are imported."""
    compile_ = torch.compile
    torch.compile = _uncompiled  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with absent("wandb"), warnings.catch_warnings():
            # It tells of accelerators that are not installed and of old torch names; neither concerns a user.
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.compile = compile_


def _uncompiled(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    """As `torch.compile` is called: on a function, or to decorate one."""
    return function or (lambda decorated: decorated)


with lean_imports():
    from megatron.core import ModelParallelConfig, parallel_state
    from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding
    from megatron.core.tensor_parallel.layers import linear_with_grad_accumulation_and_async_allreduce
    from megatron.core.tensor_parallel.mappings import (
        reduce_from_tensor_model_parallel_region,
        reduce_scatter_to_sequence_parallel_region,
    )

__all__ = [
    "ColumnParallelLinear", "ModelParallelConfig", "RowParallelLinear", "VocabParallelEmbedding",
    "linear_with_grad_accumulation_and_async_allreduce", "parallel_state",
    "reduce_from_tensor_model_parallel_region", "reduce_scatter_to_sequence_parallel_region",
]  # fmt: skip
