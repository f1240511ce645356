"""Activations of the MLP: functions of one tensor, elementwise unless they are gated.

A gated one is marked `is_gated`: it takes [..., 2 m], the value in the first half and the gate in the
second (GPT-NeoX's order), and gives [..., m].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.plugins import activations

Activation = Callable[[Tensor], Tensor]


def make_activation(model: ModelConfig) -> Activation:
    """The activation that the config names.

    `bias_gelu_fusion` stands for GPT-NeoX's fused kernel, which computes gelu's tanh approximation.

    Raises:
        UnknownPartError: no activation has that name.
        UserError: it has no such option.
    """
    name = model.activation.name
    if name == "gelu" and model.bias_gelu_fusion:
        name = "gelu_tanh"
    part, options = activations.part(name), model.activation.options
    for option in options:
        activations.check_option(name, option)
    return partial(part.value, **options) if options else part.value


def is_gated(activation: Activation) -> bool:
    """Whether the activation halves its last dimension."""
    function = activation.func if isinstance(activation, partial) else activation
    return getattr(function, "is_gated", False)


def _gated(function: Activation) -> Activation:
    cast(Any, function).is_gated = True
    return function


@activations.register("gelu")
def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution function of x, exact (Hendrycks and Gimpel 2016)."""
    return F.gelu(x)


@activations.register("gelu_tanh")
def gelu_tanh(x: Tensor) -> Tensor:
    """gelu by its tanh approximation, which GPT-NeoX's bias_gelu_fusion computes."""
    return F.gelu(x, approximate="tanh")


@activations.register("relu")
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return F.relu(x)


@activations.register("silu")
def silu(x: Tensor) -> Tensor:
    """x sigmoid(x)."""
    return F.silu(x)


@activations.register("swish")
def swish(x: Tensor) -> Tensor:
    """silu by GPT-NeoX's other name."""
    return F.silu(x)


@activations.register("mish")
def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x)) (Misra 2019)."""
    return F.mish(x)


@activations.register("softsign")
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return F.softsign(x)


@activations.register("geglu")
@_gated
def geglu(x: Tensor) -> Tensor:
    """value times gelu(gate) (Shazeer 2020, "GLU Variants Improve Transformer")."""
    value, gate = x.chunk(2, -1)
    return F.gelu(gate) * value


@activations.register("swiglu")
@_gated
def swiglu(x: Tensor) -> Tensor:
    """value times silu(gate) (Shazeer 2020); Llama's MLP."""
    value, gate = x.chunk(2, -1)
    return F.silu(gate) * value


@activations.register("glu")
@_gated
def glu(x: Tensor) -> Tensor:
    """value times sigmoid(gate) (Dauphin et al. 2016)."""
    return F.glu(x)


@activations.register("reglu")
@_gated
def reglu(x: Tensor) -> Tensor:
    """value times relu(gate) (Shazeer 2020)."""
    value, gate = x.chunk(2, -1)
    return F.relu(gate) * value


@activations.register("bilinear")
@_gated
def bilinear(x: Tensor) -> Tensor:
    """value times gate (Shazeer 2020)."""
    value, gate = x.chunk(2, -1)
    return gate * value
