"""What generation and evaluation ask of a model; `engine.inference.InferenceModel` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from megatron.neox.nn.cache import KeyValueCache


class LanguageModel(Protocol):
    """Logits of the next token, over the whole vocabulary, the same on every tensor rank."""

    @property
    def max_positions(self) -> int:
        """Longest sequence the model takes, in tokens."""
        ...

    @property
    def device(self) -> torch.device:
        """Where token ids must lie."""
        ...

    def logits(
        self, token_ids: Tensor, cache: KeyValueCache | None = None, *, at: Sequence[int] | None = None
    ) -> Tensor:
        """Ids [b, s] to logits [b, s, V]; with a cache the tokens follow those it holds, and join it.

        Args:
            at: a place in each row, whose logits alone are wanted, [b, 1, V].
        """
        ...

    def new_cache(self, batch: int, max_length: int) -> KeyValueCache:
        """Room for `max_length` tokens in each of `batch` rows."""
        ...
