"""A miniature of PolyCoder with random weights, as a checkpoint of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.neox.config import ModelConfig, TokenizerConfig
from megatron.neox.layouts.checkpoint import write_checkpoint
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import plain_model
from megatron.neox.nn.parallel import TensorParallel

ROWS = 50304
NUM_BYTES = 512
"""Rows of a miniature whose tokens are bytes, which is quicker to build."""


def stored_miniature(
    polycoder: Path, *, step: int = 3, rows: int = ROWS, scale: float = 0.2, **keys: Any
) -> StoredModel:
    """PolyCoder's architecture and vocabulary, 2 layers 16 wide, weights of size `scale` drawn with a fixed seed."""
    defaults = {
        "num_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "seq_length": 64,
        "max_position_embeddings": 64, "pos_emb": "rotary", "no_weight_tying": True, "bias_gelu_fusion": True,
        "padded_vocab_size": rows,
    }  # fmt: skip
    model = ModelConfig(**{**defaults, **keys})
    torch.manual_seed(7)
    plans = build_layers(model, padded_vocab_size=rows, parallel=TensorParallel.single())
    net = plain_model(plans)
    for name, parameter in net.named_parameters():
        parameter.data.normal_(1.0 if "norm.weight" in name else 0.0, scale)
    layers = net.numbered_layers()

    def read_layer(number: int) -> dict[str, Tensor]:
        return {name: tensor.data for name, tensor in layers[number].named_parameters()}

    tokenizer = TokenizerConfig(
        vocab_file=str(polycoder / "code-vocab.json"), merge_file=str(polycoder / "code-merges.txt")
    )
    if rows == NUM_BYTES:
        tokenizer = TokenizerConfig(tokenizer_type="CharLevelTokenizer")
    return StoredModel("miniature", polycoder, model, tokenizer, read_layer, step)


def write_miniature(polycoder: Path, folder: Path, **keys: Any) -> Path:
    """Its folder of checkpoints."""
    write_checkpoint(stored_miniature(polycoder, **keys), folder)
    return folder
