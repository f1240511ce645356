"""The model as stages of a DeepSpeed pipeline: the same layers, each built by the stage that owns it."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.seeds import seed_layer
from megatron.neox.models.plan import LayerPlan

log = logging.getLogger(__name__)

TIED_WEIGHT = "word_embeddings.weight"
"""What tied layers share; DeepSpeed adds its gradients over the stages that hold a copy."""


def build_pipeline(
    plans: Sequence[LayerPlan],
    grid: ProcessGrid,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    recompute_interval: int,
) -> nn.Module:
    """This rank's stage as a DeepSpeed PipelineModule.

    Args:
        plans: all layers of the model.
        grid: process grid with at least two pipeline stages.
        loss: from logits [s, b, v] and labels [b, s] to a mean.
        seed: seed of the run; each layer's weights depend on it and on the layer's number alone.
        recompute_interval: layers recomputed together in the backward pass; 0 keeps activations.
    """
    from deepspeed.pipe import PipelineModule

    blocks = _most_frequent_class(plans)
    assert sum(plan.layer_class is blocks for plan in plans) >= grid.pipe_size, "a stage would be empty"
    topology = grid.deepspeed_topology()
    printed = io.StringIO()
    # It prints its layers, which belongs into the log, and broadcasts tied weights with gradients switched
    # on, against which torch warns.
    with contextlib.redirect_stdout(printed), torch.no_grad():
        module = PipelineModule(
            [_layer_spec(plan, plans, seed) for plan in plans],
            topology=topology,
            loss_fn=loss,
            partition_method=f"type:^{blocks.__name__}$",
            activation_checkpoint_interval=recompute_interval,
            # Layers seed themselves: seed_layers=True would seed again in every forward pass.
            seed_layers=False,
        )
    log.debug("%s", printed.getvalue())
    return module


def local_layers(module: Any, plans: Sequence[LayerPlan]) -> list[tuple[LayerPlan, nn.Module]]:
    """The layers of this stage's PipelineModule with their plans, in order."""
    found = []
    for place, index in enumerate(range(module._local_start, module._local_stop)):
        plan = plans[index]
        layer = module.tied_modules[plan.tied_key] if plan.tied_key else module.forward_funcs[place]
        found.append((plan, layer))
    return found


def _layer_spec(plan: LayerPlan, plans: Sequence[LayerPlan], seed: int) -> Any:
    from deepspeed.pipe import LayerSpec, TiedLayerSpec

    owner = next(
        other for other in plans if other is plan or (plan.tied_key and other.tied_key == plan.tied_key)
    )
    if plan.tied_key is None:
        spec: Any = LayerSpec(plan.layer_class)
    else:
        spec = TiedLayerSpec(
            plan.tied_key, plan.layer_class, forward_fn=plan.forward, tied_weight_attr=TIED_WEIGHT
        )
    # DeepSpeed calls build() on the stage that owns the layer; a tied copy is drawn as its owner was.
    spec.build = partial(_build_seeded, owner, seed)
    return spec


def _build_seeded(plan: LayerPlan, seed: int) -> nn.Module:
    seed_layer(seed, plan.number)
    return plan.build()


def _most_frequent_class(plans: Sequence[LayerPlan]) -> type[nn.Module]:
    classes = [plan.layer_class for plan in plans if plan.tied_key is None]
    return max(classes, key=classes.count)
