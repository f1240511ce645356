"""A model as an ordered list of layers not built yet, so that each pipeline stage builds its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.embedding import Embedding
from megatron.neox.nn.head import OutputHead, tied_logits
from megatron.neox.nn.parallel import ShardLayout, TensorParallel, shard_layout
from megatron.neox.plugins import models


@dataclass(frozen=True)
class LayerPlan:
    """One layer: what to build, where its weights stand on disk, and how it runs.

    Args:
        number: GPT-NeoX's number of the layer's file: 0 embedding, 2 to L + 1 layers, L + 3 norm, L + 4 head.
        layer_class: module that maps one tensor to one tensor.
        arguments: its keyword arguments.
        tied_key: layers with the same key share one module; the first to be listed owns its file.
        forward: how the layer runs where not by the module's own forward: `forward(module, x, cache=cache)`.
    """

    number: int
    layer_class: type[nn.Module]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tied_key: str | None = None
    forward: Callable[..., Tensor] | None = None

    def build(self) -> nn.Module:
        """The layer, its weights drawn from torch's global CPU generator as it stands."""
        return self.layer_class(**self.arguments)


class PlainModel(nn.Module):
    """All layers in one process, one after the other, for inference, tests and the engine without a pipeline.

    Args:
        before_build: called with a layer's place in the list before it is built, to seed its weights.
        weights: gives a layer's weights by name, from its number and the layer, whose parameters have shapes but
            no memory yet; without it the layers draw weights of their own.
    """

    def __init__(
        self,
        plans: Sequence[LayerPlan],
        *,
        before_build: Callable[[int], None] | None = None,
        weights: Callable[[int, nn.Module], Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.plans = tuple(plans)
        self.layers = nn.ModuleDict()
        self._order: list[nn.Module] = []
        tied: dict[str, nn.Module] = {}
        for index, plan in enumerate(self.plans):
            layer = tied.get(plan.tied_key) if plan.tied_key else None
            if layer is None:
                if before_build is not None:
                    before_build(index)
                layer = plan.build() if weights is None else _filled(plan, weights)
                self.layers[f"{plan.number:02d}"] = layer
                if plan.tied_key:
                    tied[plan.tied_key] = layer
            self._order.append(layer)

    def forward(
        self,
        token_ids: Tensor,
        *,
        cache: KeyValueCache | None = None,
        at: Sequence[int] | None = None,
        up_to_head: bool = False,
    ) -> Tensor:
        """Token ids [b, s] to logits [s, b, v]; with a cache they follow those it holds, and join.

        Args:
            at: a place in each row, whose logits alone are computed, [1, b, v].
            up_to_head: give what the last layer is given, [s, b, h]; nothing is told to a cache.
        """
        x = token_ids
        for plan, layer in zip(self.plans, self._order, strict=True):
            if up_to_head and plan is self.plans[-1]:
                return x
            if at is not None and plan is self.plans[-1]:
                x = x[list(at), range(len(at))].unsqueeze(0)  # [1, b, h]
            x = plan.forward(layer, x, cache=cache) if plan.forward else layer(x, cache=cache)
        if cache is not None:
            cache.advance(token_ids.shape[1])
        return x

    def head_weight(self) -> Tensor | None:
        """This rank's rows [v, h] of the weight by which the last layer multiplies; none where it does more."""
        plan, layer = self.plans[-1], self._order[-1]
        if isinstance(layer, OutputHead) and plan.forward is None:
            return layer.final_linear.weight
        if isinstance(layer, Embedding) and plan.forward is tied_logits:
            return layer.word_embeddings.weight
        return None

    def numbered_layers(self) -> dict[int, nn.Module]:
        """Layers by the number of their file; tied ones once."""
        return {int(number): layer for number, layer in self.layers.items()}


def plain_model(
    plans: Sequence[LayerPlan],
    *,
    before_build: Callable[[int], None] | None = None,
    weights: Callable[[int, nn.Module], Mapping[str, Tensor]] | None = None,
) -> PlainModel:
    """Build every layer of the list into one module."""
    return PlainModel(plans, before_build=before_build, weights=weights)


def shard_layouts(model: ModelConfig) -> dict[int, dict[str, ShardLayout]]:
    """How each parameter of a model is split over tensor ranks, by layer number and name; takes no memory.

    Layers that share weights are there once, under the number that owns their file.

    Raises:
        UnknownPartError: the config names a part that nothing registered.
    """
    # The size of the vocabulary changes no layout.
    plans = models.get(model.model)(model, padded_vocab_size=1, parallel=TensorParallel.single())
    layouts: dict[int, dict[str, ShardLayout]] = {}
    tied: set[str] = set()
    for plan in plans:
        if plan.tied_key is None or plan.tied_key not in tied:
            layouts[plan.number] = {
                name: shard_layout(p) for name, p in _without_memory(plan).named_parameters()
            }
        if plan.tied_key is not None:
            tied.add(plan.tied_key)
    return layouts


def _without_memory(plan: LayerPlan) -> nn.Module:
    """The layer with parameters that have shapes alone."""
    with torch.device("meta"):
        return plan.build()


def _filled(plan: LayerPlan, weights: Callable[[int, nn.Module], Mapping[str, Tensor]]) -> nn.Module:
    """The layer with given weights, which are copied: at no time is there memory for another set of them."""
    layer = _without_memory(plan)
    given = weights(plan.number, layer)
    for name, parameter in list(layer.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        value = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu").copy_(given[name])
        setattr(layer.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))
    return layer
