"""From the residual stream to logits: the final norm, and the output head with weights of its own or tied."""

from __future__ import annotations

from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.embedding import Embedding
from megatron.neox.nn.initializers import make_initializer
from megatron.neox.nn.linear import ColumnLinear, split_linear
from megatron.neox.nn.norms import make_norm
from megatron.neox.nn.parallel import TensorParallel


class FinalNorm(nn.Module):
    """Norm of the finished residual stream: [s, b, h] -> [s, b, h]."""

    def __init__(self, model: ModelConfig, parallel: TensorParallel) -> None:
        super().__init__()
        self.norm = make_norm(model, parallel)

    def forward(self, x: Tensor, *, cache: KeyValueCache | None = None) -> Tensor:
        """[s, b, h] -> [s, b, h]."""
        del cache
        return self.norm(x)


class OutputHead(nn.Module):
    """Logits of this rank's share of the vocabulary: [s, b, h] -> [s, b, v]."""

    def __init__(self, model: ModelConfig, parallel: TensorParallel, *, padded_vocab_size: int) -> None:
        super().__init__()
        self.final_linear = ColumnLinear(
            model.hidden_size,
            padded_vocab_size,
            parallel=parallel,
            initializer=make_initializer(model.init_method, model),
            bias=False,
        )

    def forward(self, x: Tensor, *, cache: KeyValueCache | None = None) -> Tensor:
        """[s, b, h] -> [s, b, v]."""
        del cache
        return self.final_linear(x)


def tied_logits(embedding: Embedding, x: Tensor, *, cache: KeyValueCache | None = None) -> Tensor:
    """Logits by the embedding's own weight: [s, b, h] -> [s, b, v]."""
    del cache
    return split_linear(x, embedding.word_embeddings.weight, embedding.parallel)
