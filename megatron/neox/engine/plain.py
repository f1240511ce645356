"""The model as one module from token ids to the loss, for the DeepSpeed engine without a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.neox.models.plan import LayerPlan, PlainModel

Layer = Callable[[Tensor], Tensor]


class TiedForward(nn.Module):
    """A layer that runs another module's weights, such as the tied output head.

    It is a module of its own because ZeRO 3 gathers the weights that a running module touches.
    """

    def __init__(self, plan: LayerPlan, owner: nn.Module) -> None:
        super().__init__()
        self.plan = plan
        self.owner = (owner,)  # a tuple, so that the parameters are not registered twice

    def forward(self, x: Tensor) -> Tensor:
        """What the plan computes of `x` with the owner's weights."""
        assert self.plan.forward is not None
        return self.plan.forward(self.owner[0], x)


class LossModel(nn.Module):
    """Token ids [b, s] and labels [b, s] to the mean loss.

    Args:
        recompute_interval: transformer layers recomputed together in the backward pass; 0 keeps activations.
    """

    def __init__(
        self, model: PlainModel, *, loss: Callable[[Tensor, Tensor], Tensor], recompute_interval: int = 0
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.tied_forwards = nn.ModuleList()
        runs = [self._run_of(plan) for plan in model.plans]
        self._segments = [runs] if not recompute_interval else _segments(runs, recompute_interval)
        self._recompute = recompute_interval > 0

    def forward(self, token_ids: Tensor, labels: Tensor) -> Tensor:
        """Mean loss in nats."""
        return self.loss(self.logits(token_ids), labels)

    def logits(self, token_ids: Tensor) -> Tensor:
        """[b, s] -> [s, b, v]."""
        x = token_ids
        for segment in self._segments:
            run = partial(_run, segment)
            x = checkpoint(run, x, use_reentrant=False) if self._recompute and self.training else run(x)
            assert isinstance(x, Tensor)
        return x

    def _run_of(self, plan: LayerPlan) -> Layer:
        layers = self.model.numbered_layers()
        if plan.number in layers:
            return layers[plan.number]
        owner = next(p.number for p in self.model.plans if p.tied_key == plan.tied_key)
        tied = TiedForward(plan, layers[owner])
        self.tied_forwards.append(tied)
        return tied


def _segments(runs: Sequence[Layer], interval: int) -> list[list[Layer]]:
    """The layers in groups of `interval`."""
    return [list(runs[start : start + interval]) for start in range(0, len(runs), interval)]


def _run(layers: Sequence[Layer], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x
