"""Keys and values of the tokens seen so far, so that decoding computes new tokens only.

    cache = KeyValueCache(batch, max_length, model, parallel)
    logits = net(prompts, cache=cache)      # [b, s] right-padded prompts
    cache.truncate(prompt_lengths)          # the padding never was
    logits = net(next_ids, cache=cache)     # [b, 1], each row at its own position

A row's new tokens stand after the tokens it holds. What was padding is overwritten by the tokens that follow,
and is never attended to before that, since it lies in every real token's future.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.nn.parallel import TensorParallel


class KeyValueCache:
    """Room for `max_length` tokens in each of `batch` rows, in every layer.

    Attributes:
        lengths: tokens that each row holds.
    """

    def __init__(self, batch: int, max_length: int, model: ModelConfig, parallel: TensorParallel) -> None:
        self.lengths = [0] * batch
        self.max_length = max_length
        heads = parallel.share(model.num_query_groups, "num_kv_heads")
        shape = (model.num_layers, batch, max_length, heads, model.head_size)
        self._keys = torch.zeros(shape, dtype=parallel.dtype, device=parallel.device)
        self._values = torch.zeros_like(self._keys)
        self._rows = torch.arange(batch, device=parallel.device)

    def places(self, num_new: int) -> Tensor:
        """Positions [num_new, b] of each row's next tokens."""
        start = torch.tensor(self.lengths, device=self._rows.device)
        return start + torch.arange(num_new, device=self._rows.device).unsqueeze(1)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens' [s, b, g, d] and return all of the layer's, [keys, b, g, d]."""
        num_new = keys.shape[0]
        places = self.places(num_new)
        total = max(self.lengths) + num_new
        assert total <= self.max_length, f"{total} tokens do not fit a cache of {self.max_length}"
        self._keys[layer][self._rows, places] = keys
        self._values[layer][self._rows, places] = values
        return self._keys[layer, :, :total].transpose(0, 1), self._values[layer, :, :total].transpose(0, 1)

    def advance(self, num_new: int) -> None:
        """Count the new tokens in; the model does so once all its layers have seen them."""
        self.lengths = [length + num_new for length in self.lengths]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget what each row holds beyond its length in `lengths`."""
        assert len(lengths) == len(self.lengths)
        assert all(0 <= new <= old for new, old in zip(lengths, self.lengths)), "a cache cannot grow this way"
        self.lengths = list(lengths)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order."""
        chosen = torch.tensor(rows, device=self._rows.device)
        self.lengths = [self.lengths[row] for row in rows]
        self._keys = self._keys[:, chosen]
        self._values = self._values[:, chosen]
        self._rows = torch.arange(len(rows), device=self._rows.device)
