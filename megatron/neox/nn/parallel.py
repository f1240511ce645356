"""How layers are split over tensor ranks, and how a shard maps into the whole parameter.

Layers never ask who they are: they are handed a `TensorParallel`, made by the engine's grid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")


class _OneRank:
    """A process group of this process alone, for where torch.distributed has not been started."""

    def size(self) -> int:
        return 1

    def rank(self) -> int:
        return 0


@dataclass(frozen=True)
class TensorParallel:
    """This rank's place among the tensor ranks, and what building a layer there takes.

    Args:
        group: process group of the tensor ranks.
        rank: this rank's number in the group.
        size: tensor ranks, t.
        sequence_parallel: whether activations between the split regions are split along the sequence.
        dtype: type of the parameters.
        device: where the layers run; they are built on the CPU.
    """

    group: Any
    rank: int = 0
    size: int = 1
    sequence_parallel: bool = False
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.size
        assert self.size > 1 or not self.sequence_parallel, "sequence parallelism needs several tensor ranks"

    @classmethod
    def single(
        cls, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> TensorParallel:
        """Layers whole on one rank; needs no process group."""
        return cls(_OneRank(), dtype=dtype, device=torch.device(device))

    def share(self, count: int, what: str) -> int:
        """This rank's part of `count` things that are split evenly."""
        assert count % self.size == 0, f"{what} ({count}) is not divisible by the tensor ranks ({self.size})"
        return count // self.size

    def gather(self, shard: Tensor, dim: int = -1) -> Tensor:
        """Join the tensor ranks' shards along `dim`, on every rank, without gradient.

        megatron-core's own gather works on CUDA only.
        """
        if self.size == 1:
            return shard
        parts = [torch.empty_like(shard, memory_format=torch.contiguous_format) for _ in range(self.size)]
        torch.distributed.all_gather(parts, shard.contiguous(), group=self.group)
        return torch.cat(parts, dim)

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up the ranks' tensors in place, on every rank, without gradient."""
        if self.size > 1:
            assert tensor.is_contiguous(), "gloo and nccl reduce contiguous memory"
            torch.distributed.all_reduce(tensor, group=self.group)
        return tensor

    def maximum(self, tensor: Tensor) -> Tensor:
        """Largest of the ranks' values, in place, on every rank, without gradient."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX, group=self.group)
        return tensor

    def mark_replicated(self, module: nn.Module) -> None:
        """Tell the engine which parameters see only this rank's part of the sequence.

        Under sequence parallelism their gradients are partial: the engine adds them over the tensor ranks.
        """
        for parameter in module.parameters():
            cast(Any, parameter).sequence_parallel = self.sequence_parallel

    @contextlib.contextmanager
    def own_random_stream(self, device: torch.device) -> Iterator[None]:
        """Random numbers of this tensor rank's own, derived from the seed that all of them share.

        The shared stream moves on by one draw, so that it stays equal on all tensor ranks.
        """
        if self.size == 1:
            yield
            return
        seed = int(torch.randint(2**62, ())) + self.rank
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield


@dataclass(frozen=True)
class ShardLayout:
    """How the tensor ranks' shards of a parameter make up the whole.

    Args:
        dim: dimension that is split; none means that every rank holds the whole.
        sections: relative sizes of the parts that the whole consists of along `dim`, each of which is split
            evenly: (1,) is one matrix, (1, 1) the two halves of a gated MLP, (n, g, g) grouped queries, keys
            and values. A shard holds its share of each part, in the same order.
    """

    dim: int | None = None
    sections: tuple[int, ...] = (1,)

    def split(self, whole: Tensor, size: int) -> list[Tensor]:
        """The shards of `size` tensor ranks, by rank; `merge` undoes it."""
        if self.dim is None:
            return [whole] * size
        parts = [part.chunk(size, self.dim) for part in whole.split(self._lengths(whole), self.dim)]
        return [torch.cat([part[rank] for part in parts], self.dim) for rank in range(size)]

    def merge(self, shards: Sequence[Tensor]) -> Tensor:
        """The whole parameter from all tensor ranks' shards, by rank."""
        if self.dim is None:
            return shards[0]
        parts = zip(*(shard.split(self._lengths(shard), self.dim) for shard in shards), strict=True)
        return torch.cat([shard for part in parts for shard in part], self.dim)

    def _lengths(self, tensor: Tensor) -> list[int]:
        assert self.dim is not None
        unit, rest = divmod(tensor.shape[self.dim], sum(self.sections))
        assert rest == 0, f"{tuple(tensor.shape)} does not divide into sections {self.sections}"
        return [unit * section for section in self.sections]


def shard_layout(parameter: Tensor) -> ShardLayout:
    """The layout of a parameter of our layers; one without marks is replicated."""
    if not getattr(parameter, "tensor_model_parallel", False):
        return ShardLayout()
    marked = cast(Any, parameter)
    return ShardLayout(marked.partition_dim, getattr(parameter, "shard_sections", (1,)))
