"""Normalisations of the last dimension; parameter names are GPT-NeoX's.

Each part takes the size, and asks by name for the YAML keys it needs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import norms


def make_norm(model: ModelConfig, parallel: TensorParallel, size: int | None = None) -> nn.Module:
    """The norm that the config names, over `size` features (the hidden size unless given).

    Raises:
        UnknownPartError: no norm has that name.
        UserError: it has no such option.
    """
    norm = norms.build(model.norm.name, size or model.hidden_size, options=model.norm.options, **dict(model))
    norm = norm.to(parallel.dtype)
    parallel.mark_replicated(norm)
    return norm


@norms.register("layernorm")
class LayerNorm(nn.LayerNorm):
    """Layer normalisation with scale and, unless use_bias_in_norms is false, bias (Ba et al. 2016)."""

    def __init__(self, size: int, *, layernorm_epsilon: float = 1e-5, use_bias_in_norms: bool = True) -> None:
        super().__init__(size, eps=layernorm_epsilon, bias=use_bias_in_norms)


@norms.register("non_parametric_layernorm")
class NonParametricLayerNorm(nn.LayerNorm):
    """Layer normalisation without parameters (OLMo)."""

    def __init__(self, size: int, *, layernorm_epsilon: float = 1e-5) -> None:
        super().__init__(size, eps=layernorm_epsilon, elementwise_affine=False)


@norms.register("rmsnorm")
class RMSNorm(nn.Module):
    """Division by the root mean square, epsilon inside the root (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, *, rms_norm_epsilon: float = 1e-8) -> None:
        super().__init__()
        self.epsilon = rms_norm_epsilon
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]."""
        return F.rms_norm(x, self.scale.shape, self.scale, self.epsilon)


@norms.register("scalenorm")
class ScaleNorm(nn.Module):
    """Division by the Euclidean length, times one learned number (Nguyen and Salazar 2019)."""

    def __init__(self, size: int, *, scalenorm_epsilon: float = 1e-8) -> None:
        super().__init__()
        self.epsilon = scalenorm_epsilon
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return x * (self.g / length.clamp(min=self.epsilon)).to(x.dtype)
