"""Dropout whose random numbers agree between tensor ranks exactly where the tensors do."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from megatron.neox.nn.parallel import TensorParallel


class HiddenDropout(nn.Module):
    """Dropout of the residual stream, which every tensor rank holds whole, or its share along the sequence.

    Equal on all tensor ranks in the first case, independent in the second. Draws from torch's global
    generators, which the engine seeds alike on the tensor ranks.
    """

    def __init__(self, probability: float, parallel: TensorParallel) -> None:
        super().__init__()
        self.probability = probability
        self.parallel = parallel

    def forward(self, x: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h]."""
        if not self.training or self.probability == 0:
            return x
        if not self.parallel.sequence_parallel:
            return F.dropout(x, self.probability)
        with self.parallel.own_random_stream(x.device):
            return F.dropout(x, self.probability)
