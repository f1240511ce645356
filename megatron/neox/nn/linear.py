"""Linear layers split over the tensor ranks: megatron-core's, with the plain kernel where nothing is split.

A column-parallel layer splits the output features, a row-parallel one the input features:

    [s, b, h] -> column -> [s, b, m] -> row -> [s, b, h]

so that a pair of them communicates once forward (after the row layer) and once backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.neox.nn.core import (
    ColumnParallelLinear,
    ModelParallelConfig,
    RowParallelLinear,
    VocabParallelEmbedding,
    linear_with_grad_accumulation_and_async_allreduce,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.neox.nn.parallel import ShardLayout, TensorParallel

__all__ = [
    "ColumnLinear", "Initializer", "RowLinear", "VocabParallelEmbedding", "core_config", "split_linear",
]  # fmt: skip

Initializer = Callable[[Tensor], Any]
"""Fills a whole weight [out, in] in place."""


def core_config(parallel: TensorParallel) -> ModelParallelConfig:
    """Settings of megatron-core's layers under which they run on CPU and GPU alike.

    The whole weight is made on every rank's CPU and each rank keeps its share, so that weights do not
    depend on t. `perform_initialization=False` would lose the marks that the gradient norm needs.
    """
    return ModelParallelConfig(
        tensor_model_parallel_size=parallel.size,
        pipeline_model_parallel_size=1,  # the pipeline is DeepSpeed's affair
        sequence_parallel=parallel.sequence_parallel,
        use_cpu_initialization=True,
        perform_initialization=True,
        gradient_accumulation_fusion=False,
        params_dtype=parallel.dtype,
    )


class ColumnLinear(ColumnParallelLinear):
    """Linear layer with this rank's share of the output features: [s, b, in] -> [s, b, out / t].

    Args:
        sections: relative sizes of the parts that make up the output, each split over the ranks by itself.
    """

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        parallel: TensorParallel,
        initializer: Initializer,
        bias: bool = True,
        sections: Sequence[int] = (1,),
    ) -> None:
        layout = ShardLayout(0, tuple(sections))

        def fill(whole: Tensor) -> None:
            initializer(whole)
            # megatron-core deals out contiguous rows, so the shards are laid one after the other for it.
            if len(sections) > 1 and parallel.size > 1:
                whole.copy_(torch.cat(layout.split(whole, parallel.size)))

        super().__init__(
            in_size,
            out_size,
            config=core_config(parallel),
            init_method=fill,
            bias=bias,
            gather_output=False,
            tp_group=parallel.group,
        )
        for parameter in self.parameters():
            cast(Any, parameter).shard_sections = layout.sections
        self.is_whole = parallel.size == 1

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[s, b, in] -> [s, b, out / t]; under sequence parallelism the input is [s / t, b, in]."""
        if self.is_whole:
            assert self.weight is not None
            return F.linear(x, self.weight, self.bias)
        return super().forward(x)[0]

    # megatron-core's empty `_extra_state` would stand in every layer file.
    get_extra_state = nn.Module.get_extra_state


class RowLinear(RowParallelLinear):
    """Linear layer with this rank's share of the input features; the ranks' results are added up.

    [s, b, in / t] -> [s, b, out], or [s / t, b, out] under sequence parallelism. The bias is whole on every
    rank and is added once, after the sum.
    """

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        parallel: TensorParallel,
        initializer: Initializer,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_size,
            out_size,
            config=core_config(parallel),
            init_method=initializer,
            bias=bias,
            input_is_parallel=True,
            skip_bias_add=False,
            tp_group=parallel.group,
        )
        self.is_whole = parallel.size == 1

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[s, b, in / t] -> [s, b, out]."""
        if self.is_whole:
            return F.linear(x, self.weight, self.bias)
        # megatron-core's own forward lets its linear look for a default group, with a warning.
        partial_sums = F.linear(x, self.weight).contiguous()
        add_up = (
            reduce_scatter_to_sequence_parallel_region
            if self.sequence_parallel
            else reduce_from_tensor_model_parallel_region
        )
        summed = add_up(partial_sums, group=self.tp_group)
        return summed if self.bias is None else summed + self.bias

    get_extra_state = nn.Module.get_extra_state


def split_linear(x: Tensor, weight: Tensor, parallel: TensorParallel) -> Tensor:
    """Product with this rank's rows of a weight that another layer owns: [s, b, in] -> [s, b, out / t]."""
    if parallel.size == 1:
        return F.linear(x, weight)
    return linear_with_grad_accumulation_and_async_allreduce(
        x,
        weight,
        bias=None,
        gradient_accumulation_fusion=False,
        allreduce_dgrad=not parallel.sequence_parallel,
        sequence_parallel=parallel.sequence_parallel,
        tp_group=parallel.group,
    )
