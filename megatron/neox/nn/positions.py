"""Where a token stands: added to embeddings, turned into queries and keys, or added to attention scores.

A part is built once for a model and shared by its layers; only learned positions have parameters, and those
live in the embedding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.nn.initializers import make_initializer
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import positions


@positions.register("none")
class Position:
    """No positions: only the causal mask tells order (Haviv et al. 2022)."""

    def __init__(self, model: ModelConfig, parallel: TensorParallel) -> None:
        self.model = model
        self.parallel = parallel

    def embedding(self) -> nn.Module | None:
        """A module of positions [s, b] -> [s, b, h] that is added to the token embedding."""
        return None

    def rotate(self, queries: Tensor, keys: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [s, b, n, d] and keys [s, b, g, d] at `places` [s, b] (or [s, 1]), made aware of them."""
        del places
        return queries, keys

    def scores(self, query_places: Tensor, key_places: Tensor) -> Tensor | None:
        """What is added to attention scores [b or 1, n, s, keys]; places are [s, b or 1] and [keys]."""
        del query_places, key_places
        return None


def make_position(model: ModelConfig, parallel: TensorParallel) -> Position:
    """The positions that the config names.

    Raises:
        UnknownPartError: none has that name.
    """
    return positions.get(model.pos_emb)(model, parallel)


@positions.register("learned")
class Learned(Position):
    """One learned vector for each position, added to the token embedding (GPT-2)."""

    def embedding(self) -> nn.Module:
        """Table of vectors, [s, b] -> [s, b, h]."""
        table = nn.Embedding(
            self.model.max_position_embeddings, self.model.hidden_size, dtype=self.parallel.dtype
        )
        with torch.no_grad():
            make_initializer(self.model.init_method, self.model)(table.weight)
        self.parallel.mark_replicated(table)
        return table


@positions.register("sinusoidal")
class Sinusoidal(Position):
    """Sines, then cosines, of geometric frequencies, added to the embedding (Vaswani et al. 2017)."""

    def embedding(self) -> nn.Module:
        """Computed vectors, [s, b] -> [s, b, h]."""
        return _Sinusoids(self.model.hidden_size, self.parallel.dtype)


class _Sinusoids(nn.Module):
    def __init__(self, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.dtype = dtype

    def forward(self, places: Tensor) -> Tensor:
        angles = places.unsqueeze(-1) * _frequencies(self.hidden_size, 10000.0, places.device)
        return torch.cat((angles.sin(), angles.cos()), -1).to(self.dtype)


@positions.register("rotary")
class Rotary(Position):
    """Turns pairs of query and key features by angles that grow with the position (Su et al. 2021, RoFormer).

    As in GPT-NeoX, feature i is paired with feature i + rotary_size / 2, and only the first rotary_pct of a
    head's features turn. `rotary_table: fp16_legacy` rounds as DeepSpeed of 2022 did, which made the
    frequencies fp16 with the rest of the model: its checkpoints expect an error of 0.9 rad at position 2047.
    """

    def __init__(self, model: ModelConfig, parallel: TensorParallel) -> None:
        super().__init__(model, parallel)
        self.size = model.rotary_size
        assert self.size % 2 == 0, "config/checks.py refuses an odd number of turned features"
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def rotate(self, queries: Tensor, keys: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the first features of each head."""
        cos, sin = (table[places].unsqueeze(2) for table in self.tables(queries))  # [s, b, 1, size / 2]
        return _turn(queries, cos, sin), _turn(keys, cos, sin)

    def tables(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [max_position_embeddings, size / 2] in the type and on the device of `like`."""
        key = (like.device, like.dtype)
        if key not in self._tables:
            angles = rotary_angles(
                self.model.max_position_embeddings,
                self.size,
                base=self.model.rotary_emb_base,
                legacy=self.model.rotary_table == "fp16_legacy",
            ).to(like.device)
            self._tables[key] = angles.cos().to(like.dtype), angles.sin().to(like.dtype)
        return self._tables[key]


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return _Turn.apply(x, cos, sin)  # pyright: ignore[reportReturnType]


class _Turn(torch.autograd.Function):
    """Rotation of the first 2 size(cos) features of x [s, b, n, d]; the gradient is turned back.

    One pass over memory for each product. The result lies in memory as [b, n, s, d], as attention reads it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        s, b, n, d = x.shape
        return _turn_into(x.new_empty(b, n, s, d).permute(2, 0, 1, 3), x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn_into(gradients[0].new_empty(gradients[0].shape), gradients[0], cos, -sin), None, None


def _turn_into(out: Tensor, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half : 2 * half]).addcmul_(first, sin)
    out[..., 2 * half :] = x[..., 2 * half :]
    return out


def rotary_angles(length: int, size: int, *, base: float, legacy: bool) -> Tensor:
    """Angles in radians [length, size / 2], fp32; `legacy` rounds every step to fp16."""
    frequencies = _frequencies(size, base, torch.device("cpu"))
    places = torch.arange(length, dtype=torch.float32)
    if legacy:
        return (places.half().unsqueeze(1) * frequencies.half()).float()
    return torch.outer(places, frequencies)


def _frequencies(size: int, base: float, device: torch.device) -> Tensor:
    """base ** (-2 i / size) for i below size / 2, fp32."""
    return 1.0 / base ** (torch.arange(0, size, 2, dtype=torch.float32, device=device) / size)


@positions.register("alibi")
class Alibi(Position):
    """Lowers scores in proportion to the distance, each head with a slope of its own (Press et al. 2021)."""

    def scores(self, query_places: Tensor, key_places: Tensor) -> Tensor:
        """-slope times distance [b or 1, n, s, keys], fp32."""
        slopes = torch.tensor(alibi_slopes(self.model.num_attention_heads), device=key_places.device)
        slopes = slopes.chunk(self.parallel.size)[self.parallel.rank]
        distances = query_places.t()[:, None, :, None] - key_places  # [b, 1, s, keys]
        return -slopes[:, None, None] * distances


def alibi_slopes(num_heads: int) -> list[float]:
    """Slopes by head: a geometric series for a power of two, else filled up from the next series."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    if power < num_heads:
        slopes += alibi_slopes(2 * power)[0::2][: num_heads - power]
    return slopes
