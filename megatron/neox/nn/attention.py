"""Causal self-attention, heads split over the tensor ranks; the parts differ in what a query may see."""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.causal import causal_attention
from megatron.neox.nn.initializers import make_initializer
from megatron.neox.nn.linear import ColumnLinear, RowLinear
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.nn.positions import Position
from megatron.neox.plugins import attentions


def make_attention(
    name: str, model: ModelConfig, parallel: TensorParallel, *, layer: int, position: Position
) -> nn.Module:
    """The attention that the config names for a layer.

    Raises:
        UnknownPartError: no attention has that name.
    """
    return attentions.build(name, model, parallel, layer=layer, position=position, **dict(model))


@attentions.register("global")
class Attention(nn.Module):
    """Every token attends to itself and all before it: [s, b, h] -> [s, b, h].

    The rows of `query_key_value` are GPT-NeoX's. With as many key heads as query heads, each head has its
    queries, keys and values together, [n, 3, d], and tensor ranks hold contiguous rows. With grouped queries
    a rank holds all its queries, then all its keys, then all its values (GPT-NeoX since 2024-11): the whole
    is [queries, keys, values], split section by section (`ShardLayout`).
    """

    window: int | None = None  # tokens that a query sees, itself included

    def __init__(
        self, model: ModelConfig, parallel: TensorParallel, *, layer: int, position: Position
    ) -> None:
        super().__init__()
        self.parallel = parallel
        self.position = position
        self.layer = layer
        self.head_size = model.head_size
        self.num_heads = parallel.share(model.num_attention_heads, "num_attention_heads")
        self.num_groups = parallel.share(model.num_query_groups, "num_kv_heads")
        self.dropout = model.attention_dropout
        self.has_fp32_scores = model.attention_softmax_in_fp32
        divisor = layer + 1 if model.scale_attn_by_inverse_layer_idx else 1
        self.scale = model.head_size**-0.5 / divisor
        self.is_grouped = model.num_query_groups != model.num_attention_heads
        sizes = (model.num_attention_heads, model.num_query_groups, model.num_query_groups)
        self.query_key_value = ColumnLinear(
            model.hidden_size,
            sum(sizes) * model.head_size,
            parallel=parallel,
            initializer=make_initializer(model.init_method, model),
            bias=model.use_bias_in_attn_linear,
            sections=sizes if self.is_grouped else (1,),
        )
        self.dense = RowLinear(
            model.num_attention_heads * model.head_size,
            model.hidden_size,
            parallel=parallel,
            initializer=make_initializer(model.output_layer_init_method, model),
            bias=model.use_bias_in_attn_linear,
        )

    def forward(self, hidden: Tensor, *, cache: KeyValueCache | None = None) -> Tensor:
        """[s, b, h] -> [s, b, h]; with a cache the tokens follow those it holds."""
        queries, keys, values = self._project(hidden)
        length = queries.shape[0]
        places = torch.arange(length, device=hidden.device).unsqueeze(1)  # [s, 1]
        if cache is not None:
            places = cache.places(length)  # [s, b]
        queries, keys = self.position.rotate(queries, keys, places)
        if cache is not None:
            keys, values = cache.update(self.layer, keys, values)
        mask = self._mask(places, keys.shape[0], queries)
        dropout = self.dropout if self.training else 0.0
        # The blocks are there for the backward pass; forward alone torch's kernel is 1.1 to 2.7 times as fast.
        by_blocks = queries.device.type == "cpu" and not torch.is_inference_mode_enabled()
        if mask is None and dropout == 0 and by_blocks:
            return self.dense(self._attend_by_blocks(queries, keys, values))
        with self.parallel.own_random_stream(queries.device) if dropout else contextlib.nullcontext():
            return self.dense(self._attend(queries, keys, values, mask, dropout))

    def _project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [s, b, n, d], keys and values [s, b, g, d]."""
        fused = self.query_key_value(hidden)
        s, b, _ = fused.shape
        if not self.is_grouped:
            queries, keys, values = fused.view(s, b, self.num_heads, 3 * self.head_size).chunk(3, -1)
        else:
            heads = fused.view(s, b, -1, self.head_size)
            queries, keys, values = heads.split((self.num_heads, self.num_groups, self.num_groups), 2)
        return queries, keys, values

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float
    ) -> Tensor:
        """Mix the values: queries [s, b, n, d], keys and values [keys, b, g, d] -> [s, b, n d]."""
        q, k, v = (x.permute(1, 2, 0, 3) for x in (queries, keys, values))  # [b, heads, tokens, d]
        context = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=self.scale,
            enable_gqa=self.is_grouped,
        )
        return context.permute(2, 0, 1, 3).flatten(2)

    def _attend_by_blocks(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`_attend` for plain causal attention on a CPU."""
        s, b, n, d = queries.shape
        if self.is_grouped:
            keys, values = (x.repeat_interleave(n // x.shape[2], 2) for x in (keys, values))
        q, k, v = (x.reshape(s, b * n, d).transpose(0, 1).contiguous() for x in (queries, keys, values))
        if self.has_fp32_scores:  # the blocks would round them to the values' type
            at_least_fp32 = torch.promote_types(values.dtype, torch.float32)
            q, k, v = q.to(at_least_fp32), k.to(at_least_fp32), v.to(at_least_fp32)
        context = causal_attention(q, k, v, scale=self.scale).to(values.dtype)
        return context.transpose(0, 1).reshape(s, b, n * d)

    def _mask(self, places: Tensor, num_keys: int, queries: Tensor) -> Tensor | None:
        """What is added to the scores, or which of them count; none where plain causal attention does."""
        key_places = torch.arange(num_keys, device=places.device)
        scores = self.position.scores(places, key_places)
        plain = scores is None and places.shape == (num_keys, 1)
        if plain and (self.window is None or self.window >= num_keys):
            return None
        distances = places.t()[:, None, :, None] - key_places  # [b, 1, s, keys]
        seen = distances >= 0
        if self.window is not None:
            seen &= distances < self.window
        return seen if scores is None else scores.to(queries.dtype).masked_fill(~seen, float("-inf"))


@attentions.register("local")
class LocalAttention(Attention):
    """Every token attends to the last sliding_window_width tokens, itself included."""

    def __init__(
        self,
        model: ModelConfig,
        parallel: TensorParallel,
        *,
        layer: int,
        position: Position,
        sliding_window_width: int | None = None,
    ) -> None:
        super().__init__(model, parallel, layer=layer, position=position)
        self.window = sliding_window_width
