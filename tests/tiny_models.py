"""A tiny real language model with random weights, for tests of generation and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import PlainModel, plain_model
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.tokenizers import CharLevelTokenizer

VOCAB_SIZE = CharLevelTokenizer().vocab_size


def tiny_config(**keys: Any) -> ModelConfig:
    """Two layers, 48 positions, rotary, untied."""
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 48}
    defaults = {"max_position_embeddings": 48, "pos_emb": "rotary", "no_weight_tying": True}
    return ModelConfig(**{**sizes, **defaults, **keys})


def places(values: Tensor, at: Sequence[int] | None) -> Tensor:
    """[b, s, ...] -> [b, 1, ...] at a place of each row; all where none is given."""
    return values if at is None else values[range(len(at)), list(at)].unsqueeze(1)


class TinyLanguageModel:
    """A plain model of one process behind the LanguageModel protocol; scale 8 makes its choices clear-cut.

    The vocabulary is padded by 40 rows, whose logits are as likely as any: nothing here masks them.
    """

    def __init__(self, config: ModelConfig | None = None, *, seed: int = 0, scale: float = 8.0) -> None:
        self.config = config or tiny_config()
        self.parallel = TensorParallel.single()
        torch.manual_seed(seed)
        self.net: PlainModel = plain_model(
            build_layers(self.config, padded_vocab_size=VOCAB_SIZE + 40, parallel=self.parallel)
        )
        with torch.no_grad():
            for parameter in self.net.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02 * scale)
        self.net.eval()
        self.device = torch.device("cpu")
        self.max_positions = self.config.max_position_embeddings
        self.forward_shapes: list[tuple[int, ...]] = []

    @torch.inference_mode()
    def logits(
        self, token_ids: Tensor, cache: KeyValueCache | None = None, *, at: Sequence[int] | None = None
    ) -> Tensor:
        """[b, s] -> [b, s, V], or [b, 1, V] with `at`."""
        self.forward_shapes.append(tuple(token_ids.shape))
        return self.net(token_ids, cache=cache, at=at).transpose(0, 1)

    def new_cache(self, batch: int, max_length: int) -> KeyValueCache:
        """An empty cache."""
        return KeyValueCache(batch, max_length, self.config, self.parallel)
