"""Optimizers, each a function from parameter groups to a torch optimizer.

DeepSpeed's ZeRO hands an optimizer flat pieces of the parameters, cut at any place, so everything here works
element by element: a result never depends on how the pieces were cut. None of them compiles anything:
DeepSpeed's own Adam would call a C++ compiler at the first start, which is why its config names no optimizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from megatron.neox.config.optimization import OptimizerConfig
from megatron.neox.plugins import optimizers

ParameterGroups = list[dict[str, Any]]


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> ParameterGroups:
    """Two groups: matrices, which decay, and vectors (norms and biases), which do not; no empty ones."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim > 1]
    vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay, "name": "matrices"},
        {"params": vectors, "weight_decay": 0.0, "name": "vectors"},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimizer that the config names, over `parameters`.

    Raises:
        UnknownPartError: no optimizer has that name.
        UserError: it has no such option.
    """
    groups = parameter_groups(parameters, config.weight_decay)
    options = {"lr": config.learning_rate, **config.optimizer.options}
    return optimizers.build(config.optimizer.name, groups, options=options)


@optimizers.register("adam")
@optimizers.register("adamw")
def adamw(
    groups: ParameterGroups, *, lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); GPT-NeoX's `adam` is this too."""
    first, second = betas
    return torch.optim.AdamW(groups, lr=lr, betas=(first, second), eps=eps, fused=True)


@optimizers.register("sgd")
def sgd(
    groups: ParameterGroups, *, lr: float = 1e-3, momentum: float = 0.0, nesterov: bool = False
) -> Optimizer:
    """Stochastic gradient descent; weight decay is added to the gradient."""
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


@optimizers.register("lion")
def lion(groups: ParameterGroups, *, lr: float = 1e-4, betas: Sequence[float] = (0.9, 0.99)) -> Optimizer:
    """The sign of an interpolated momentum, with decoupled weight decay (Chen et al. 2023, algorithm 2)."""
    return Lion(groups, lr=lr, betas=betas)


@optimizers.register("adafactor")
def adafactor(
    groups: ParameterGroups, *, lr: float = 1e-3, decay_rate: float = 0.8, eps: float = 1e-30
) -> Optimizer:
    """Adafactor without momentum, its second moment not factored (Shazeer and Stern 2018, section 7.2).

    Rows and columns are unknown in ZeRO's flat pieces; the state is half of Adam's. gradient_clipping stands
    in for the paper's clipping of the update, which would depend on where the pieces are cut.
    """
    return Adafactor(groups, lr=lr, decay_rate=decay_rate, eps=eps)


class _ElementwiseOptimizer(Optimizer):
    """An optimizer whose step treats each tensor by itself."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, group, self.state[parameter])

    def update(
        self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> None:
        """Change one parameter and its state in place."""
        raise NotImplementedError


class Lion(_ElementwiseOptimizer):
    """See `lion`."""

    def __init__(self, groups: ParameterGroups, *, lr: float, betas: Sequence[float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": tuple(betas), "weight_decay": 0.0})

    def update(
        self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> None:
        """One step of one tensor."""
        first, second = group["betas"]
        momentum = state.setdefault("exp_avg", torch.zeros_like(parameter))
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        parameter.add_(torch.lerp(gradient, momentum, first).sign_(), alpha=-group["lr"])
        momentum.lerp_(gradient, 1.0 - second)


class Adafactor(_ElementwiseOptimizer):
    """See `adafactor`."""

    def __init__(self, groups: ParameterGroups, *, lr: float, decay_rate: float, eps: float) -> None:
        super().__init__(groups, {"lr": lr, "decay_rate": decay_rate, "eps": eps, "weight_decay": 0.0})

    def update(
        self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> None:
        """One step of one tensor."""
        step = state.setdefault("step", torch.zeros((), dtype=torch.float32))
        moment = state.setdefault("exp_avg_sq", torch.zeros_like(parameter))
        step.add_(1.0)
        # The paper's equation for beta2: 0 at the first step, rising to 1.
        new_share = float(step) ** -group["decay_rate"]
        moment.lerp_(gradient.square().add_(group["eps"]), new_share)
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        parameter.addcmul_(gradient, moment.rsqrt(), value=-group["lr"])
