"""One transformer layer: how attention and MLP join the residual stream.

::

    sequential (GPT-2, PolyCoder)           parallel (gpt_j_residual)

    x ─┬────────────────────────┐           x ─┬──────────────────────────────┐
       │ input_layernorm        │              ├─ input_layernorm ── attention ┤
       │ attention, dropout     │              │               dropout        │
       +────────────────────────┘              ├─ post_attention_layernorm    │
       ├────────────────────────┐              │               mlp, dropout ──┤
       │ post_attention_layernorm              +──────────────────────────────┘
       │ mlp, dropout           │           out
       +────────────────────────┘
      out                                   gpt_j_tied: input_layernorm serves both branches
"""

from __future__ import annotations

from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.nn.attention import make_attention
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.dropout import HiddenDropout
from megatron.neox.nn.mlp import MLP
from megatron.neox.nn.norms import make_norm
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.nn.positions import Position


class TransformerLayer(nn.Module):
    """Attention and MLP around the residual stream: [s, b, h] -> [s, b, h].

    Args:
        layer: number of the layer, from 0.
        position: the model's positions, shared by its layers.
    """

    def __init__(
        self, model: ModelConfig, parallel: TensorParallel, *, layer: int, position: Position
    ) -> None:
        super().__init__()
        self.is_parallel = model.gpt_j_residual
        self.is_tied = model.gpt_j_residual and model.gpt_j_tied
        self.input_layernorm = make_norm(model, parallel)
        self.attention = make_attention(
            model.layer_attention[layer], model, parallel, layer=layer, position=position
        )
        if not self.is_tied:
            self.post_attention_layernorm = make_norm(model, parallel)
        self.mlp = MLP(model, parallel)
        self.dropout = HiddenDropout(model.hidden_dropout, parallel)

    def forward(self, x: Tensor, *, cache: KeyValueCache | None = None) -> Tensor:
        """[s, b, h] -> [s, b, h]; with a cache the tokens follow those it holds."""
        normed = self.input_layernorm(x)
        attended = x + self.dropout(self.attention(normed, cache=cache))
        if not self.is_parallel:
            normed = self.post_attention_layernorm(attended)
        elif not self.is_tied:
            normed = self.post_attention_layernorm(x)
        return attended + self.dropout(self.mlp(normed))
