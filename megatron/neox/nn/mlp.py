"""The position-wise network between two residual additions."""

from __future__ import annotations

from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.nn.activations import is_gated, make_activation
from megatron.neox.nn.initializers import make_initializer
from megatron.neox.nn.linear import ColumnLinear, RowLinear
from megatron.neox.nn.parallel import TensorParallel


class MLP(nn.Module):
    """Widen, activate, narrow: [s, b, h] -> [s, b, h], the width split over the tensor ranks.

    A gated activation takes twice the width: `dense_h_to_4h` is then [value, gate], split section by section.
    """

    def __init__(self, model: ModelConfig, parallel: TensorParallel) -> None:
        super().__init__()
        self.activation = make_activation(model)
        halves = (1, 1) if is_gated(self.activation) else (1,)
        self.dense_h_to_4h = ColumnLinear(
            model.hidden_size,
            len(halves) * model.mlp_size,
            parallel=parallel,
            initializer=make_initializer(model.init_method, model),
            bias=model.use_bias_in_mlp,
            sections=halves,
        )
        self.dense_4h_to_h = RowLinear(
            model.mlp_size,
            model.hidden_size,
            parallel=parallel,
            initializer=make_initializer(model.output_layer_init_method, model),
            bias=model.use_bias_in_mlp,
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h]."""
        return self.dense_4h_to_h(self.activation(self.dense_h_to_4h(hidden)))
