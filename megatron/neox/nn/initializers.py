"""Initial weights by GPT-NeoX's names: a part makes a function that fills a whole weight [out, in] in place.

Keyword-only parameters are the model's YAML keys, which a part asks for by name, or options of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from megatron.neox.config import ModelConfig, PartChoice
from megatron.neox.plugins import initializers

Fill = Callable[[Tensor], Any]


def make_initializer(choice: PartChoice, model: ModelConfig) -> Fill:
    """The initializer that the config names, given the model's sizes.

    Raises:
        UnknownPartError: no initializer has that name.
        UserError: it has no such option.
    """
    return initializers.build(choice.name, options=choice.options, **dict(model))


def _normal(std: float) -> Fill:
    return partial(nn.init.normal_, mean=0.0, std=std)


@initializers.register("normal")
def normal(*, init_method_std: float = 0.02) -> Fill:
    """Normal with standard deviation init_method_std."""
    return _normal(init_method_std)


@initializers.register("scaled_normal")
def scaled_normal(*, num_layers: int, init_method_std: float = 0.02) -> Fill:
    """Normal with init_method_std / sqrt(2 num_layers): each layer writes to the residual twice (GPT-2)."""
    return _normal(init_method_std / math.sqrt(2 * num_layers))


@initializers.register("single_residual_scaled_normal")
def single_residual_scaled_normal(*, num_layers: int, init_method_std: float = 0.02) -> Fill:
    """Normal with init_method_std / sqrt(num_layers), for one write to the residual a layer."""
    return _normal(init_method_std / math.sqrt(num_layers))


@initializers.register("small_init")
def small_init(*, hidden_size: int) -> Fill:
    """Normal with sqrt(2 / (5 hidden_size)) (Nguyen and Salazar 2019, "Transformers without Tears")."""
    return _normal(math.sqrt(2 / (5 * hidden_size)))


@initializers.register("wang_init")
def wang_init(*, num_layers: int, hidden_size: int) -> Fill:
    """Normal with 2 / (num_layers sqrt(hidden_size)) (Wang's GPT-J-6B, output layers)."""
    return _normal(2 / num_layers / math.sqrt(hidden_size))


@initializers.register("orthogonal")
def orthogonal() -> Fill:
    """Random orthogonal matrix times sqrt(2) (Saxe et al. 2013)."""
    return partial(nn.init.orthogonal_, gain=math.sqrt(2))


@initializers.register("scaled_orthogonal")
def scaled_orthogonal(*, num_layers: int) -> Fill:
    """Random orthogonal matrix times sqrt(2 / num_layers)."""
    return partial(nn.init.orthogonal_, gain=math.sqrt(2 / num_layers))


@initializers.register("xavier_uniform")
def xavier_uniform() -> Fill:
    """Uniform with variance 2 / (in + out) (Glorot and Bengio 2010)."""
    return nn.init.xavier_uniform_


@initializers.register("xavier_normal")
def xavier_normal() -> Fill:
    """Normal with variance 2 / (in + out) (Glorot and Bengio 2010)."""
    return nn.init.xavier_normal_
