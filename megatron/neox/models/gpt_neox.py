"""GPT-NeoX, and the families that are configurations of the same parts (GPT-2, GPT-J, PolyCoder, Llama).

::

    00        Embedding          [b, s] -> [s, b, h]
    02..L+1   TransformerLayer   [s, b, h] -> [s, b, h]
    L+3       FinalNorm          [s, b, h] -> [s, b, h]
    L+4       OutputHead         [s, b, h] -> [s, b, v], or the embedding's weight again (tied)

The numbers are those of GPT-NeoX's checkpoint files; 1 and L + 2 were functions without weights.
"""

from __future__ import annotations

from megatron.neox.config import ModelConfig
from megatron.neox.models.plan import LayerPlan
from megatron.neox.nn.embedding import Embedding
from megatron.neox.nn.head import FinalNorm, OutputHead, tied_logits
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.nn.positions import make_position
from megatron.neox.nn.residual import TransformerLayer
from megatron.neox.plugins import models


@models.register("gpt_neox")
def build_layers(model: ModelConfig, *, padded_vocab_size: int, parallel: TensorParallel) -> list[LayerPlan]:
    """GPT-NeoX: decoder-only transformer with sequential or parallel residual (Black et al. 2022).

    Raises:
        UnknownPartError: the config names a part that nothing registered.
    """
    position = make_position(model, parallel)
    shared = {"model": model, "parallel": parallel}
    embedding = {**shared, "padded_vocab_size": padded_vocab_size, "position": position}
    tied_key = "embed" if model.tie_weights else None
    plans = [LayerPlan(0, Embedding, embedding, tied_key)]
    for layer in range(model.num_layers):
        plans.append(LayerPlan(layer + 2, TransformerLayer, {**shared, "layer": layer, "position": position}))
    plans.append(LayerPlan(model.num_layers + 3, FinalNorm, shared))
    if model.tie_weights:
        plans.append(LayerPlan(model.num_layers + 4, Embedding, embedding, tied_key, tied_logits))
    else:
        head = {**shared, "padded_vocab_size": padded_vocab_size}
        plans.append(LayerPlan(model.num_layers + 4, OutputHead, head))
    return plans
