"""Whole tensors out of DeepSpeed's flat fp32 partitions, and back into them.

ZeRO keeps the fp32 weights and the optimizer's state in long flat tensors, each data-parallel rank a piece,
cut without regard to parameters. Here a parameter finds its piece; everything above sees logical tensors.

::

    parameters         [  a   ][     b      ][ c ]
    flat, two ranks    [   rank 0    ][   rank 1    |padding]
    fragment of b              ^^^^^^  ^^^^^
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Fragment:
    """The part of one parameter that lies on this rank; lengths and starts count elements."""

    flat: Tensor
    """This rank's flat fp32 weights."""
    start: int
    """Where the fragment begins in `flat`."""
    start_in_parameter: int
    length: int

    def cut(self, flat: Tensor) -> Tensor:
        """The fragment out of the weights or any state tensor of their shape."""
        return flat.narrow(0, self.start, self.length)


class Partitions:
    """The fp32 weights and optimizer state of one DeepSpeed engine, by parameter.

    Args:
        deepspeed: an engine with ZeRO 1, 2 or 3, or BF16_Optimizer.
        data_group: process group of the data-parallel ranks.
    """

    def __init__(self, deepspeed: Any, data_group: Any) -> None:
        self.deepspeed = deepspeed
        self.zero = deepspeed.optimizer
        self.optimizer = deepspeed.optimizer.optimizer
        self.data_group = data_group
        self.is_stage_3 = deepspeed.zero_optimization_stage() == 3

    @property
    def flats(self) -> list[Tensor]:
        """This rank's flat fp32 weights."""
        if self.is_stage_3:
            return list(self.zero.fp32_partitioned_groups_flat)
        return [group["params"][0] for group in self.optimizer.param_groups]

    def state_names(self) -> list[str]:
        """State tensors that the optimizer keeps, such as exp_avg; none before its first step."""
        flat = self.flats[0]
        state = self.optimizer.state.get(flat, {})
        return sorted(k for k, v in state.items() if isinstance(v, Tensor) and v.shape == flat.shape)

    def state_numbers(self) -> dict[str, float]:
        """State that is one number for all elements, such as Adam's step."""
        flat = self.flats[0]
        state = self.optimizer.state.get(flat, {})
        names = set(state) - set(self.state_names())
        return {name: float(state[name]) for name in sorted(names) if state[name] is not None}

    def create_state(self, names: list[str], numbers: dict[str, float]) -> None:
        """Make the optimizer's state as it is after its first step, to be filled by `write`."""
        for flat in self.flats:
            state = self.optimizer.state[flat]
            state.clear()
            state.update({name: torch.zeros_like(flat) for name in names})
            for name, number in numbers.items():
                state[name] = torch.tensor(number, dtype=torch.float32, device=flat.device)

    def read(self, parameter: nn.Parameter, name: str | None = None) -> Tensor:
        """A parameter's whole fp32 weight, or state tensor `name`; all data ranks call this together."""
        shape = getattr(parameter, "ds_shape", parameter.shape)
        # As integers: adding zeros keeps every bit, where floating point would lose the sign of -0.0.
        whole = torch.zeros(shape.numel(), dtype=torch.int32, device=self.flats[0].device)
        fragment = self.fragment(parameter)
        if fragment is not None:
            source = fragment.flat if name is None else self.optimizer.state[fragment.flat][name]
            place = whole.narrow(0, fragment.start_in_parameter, fragment.length)
            place.copy_(fragment.cut(source.detach()).view(torch.int32))
        distributed.all_reduce(whole, group=self.data_group)
        return whole.view(torch.float32).view(shape)

    def write(self, parameter: nn.Parameter, whole: Tensor, name: str | None = None) -> None:
        """Put this rank's part of a whole weight, or of its state tensor `name`, where it belongs."""
        fragment = self.fragment(parameter)
        if fragment is None:
            return
        target = fragment.flat if name is None else self.optimizer.state[fragment.flat][name]
        part = whole.reshape(-1).narrow(0, fragment.start_in_parameter, fragment.length)
        fragment.cut(target.detach()).copy_(part)

    def refresh_weights(self) -> None:
        """Let the model see the fp32 weights after `write`; all ranks call this together."""
        if not self.is_stage_3:
            self.zero.update_lp_params()
            return
        self.zero.checkpoint_event_prologue()  # small weights are kept gathered between steps
        for index in range(len(self.zero.fp16_groups)):
            self.zero._reassign_or_swap_out_partitioned_parameters(index)
        self.zero.checkpoint_event_epilogue()

    def fragment(self, parameter: nn.Parameter) -> Fragment | None:
        """Where this rank keeps its part of a parameter; none where all of it lies elsewhere."""
        if self.is_stage_3:
            return self._stage_3_fragment(parameter)
        mapping: Any = getattr(parameter, "_hp_mapping", None)
        if mapping is None:
            return None
        flat = self.optimizer.param_groups[mapping.param_group_index]["params"][0]
        here, there = mapping.get_hp_fragment_address(), mapping.lp_fragment_address
        return Fragment(flat, here.start, there.start, here.numel)

    def _stage_3_fragment(self, parameter: nn.Parameter) -> Fragment | None:
        zero: Any = self.zero
        group, start, length = zero.grad_position[zero.get_param_id(parameter)]
        first = distributed.get_rank(self.data_group) * length
        # Each rank has the same length of every parameter; the last piece may reach beyond its end.
        inside = min(length, getattr(parameter, "ds_numel", parameter.numel()) - first)
        if inside <= 0:
            return None
        return Fragment(zero.fp32_partitioned_groups_flat[group], start, first, inside)
