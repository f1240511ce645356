"""Token ids to vectors, the vocabulary split over the tensor ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.dropout import HiddenDropout
from megatron.neox.nn.initializers import make_initializer
from megatron.neox.nn.linear import VocabParallelEmbedding, core_config
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.nn.positions import Position


class Embedding(nn.Module):
    """Token ids [b, s] to the residual stream [s, b, h], plus learned or sinusoidal positions.

    Under sequence parallelism the result is this rank's [s / t, b, h].
    """

    def __init__(
        self, model: ModelConfig, parallel: TensorParallel, *, padded_vocab_size: int, position: Position
    ) -> None:
        super().__init__()
        self.parallel = parallel
        self.max_length = model.max_position_embeddings
        self.word_embeddings = VocabParallelEmbedding(
            padded_vocab_size,
            model.hidden_size,
            init_method=make_initializer(model.init_method, model),
            reduce_scatter_embeddings=parallel.sequence_parallel,
            config=core_config(parallel),
            tp_group=parallel.group,
        )
        self.position_embeddings = position.embedding()
        self.dropout = HiddenDropout(model.hidden_dropout, parallel)

    def forward(self, token_ids: Tensor, *, cache: KeyValueCache | None = None) -> Tensor:
        """[b, s] -> [s, b, h]; with a cache the tokens follow those it holds."""
        hidden = self._look_up(token_ids)
        if self.position_embeddings is not None:
            hidden = hidden + self.position_embeddings(self._places(token_ids, cache))
        return self.dropout(hidden)

    def _look_up(self, token_ids: Tensor) -> Tensor:
        if self.parallel.size == 1:
            # Looked up in the order in which it is used, so that no activation is transposed.
            return F.embedding(token_ids.t(), self.word_embeddings.weight)
        if self.parallel.sequence_parallel:
            return self.word_embeddings(token_ids)  # transposes by itself
        return self.word_embeddings(token_ids.t().contiguous())

    def _places(self, token_ids: Tensor, cache: KeyValueCache | None) -> Tensor:
        length = token_ids.shape[1]
        if cache is not None:
            return cache.places(length)
        places = torch.arange(length, device=token_ids.device).unsqueeze(1)  # [s, 1]
        if self.parallel.sequence_parallel:
            places = places.chunk(self.parallel.size)[self.parallel.rank]
        return places
