"""What is said where a checkpoint's tensors are of other shapes than the model's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.config import ModelConfig
from megatron.neox.engine.weights import read_weights
from megatron.neox.errors import CheckpointError
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import plain_model
from megatron.neox.nn.parallel import TensorParallel
from tests.neox_2022 import Miniature, write_checkpoint_of_neox

MINI = Miniature(rows=64, hidden_size=32, tensor_size=2)


def fill(folder: Path, *, rows: int = 64, **keys: Any) -> None:
    """Fill a model's layers, one after the other."""
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 16}
    more = {"max_position_embeddings": 16, "pos_emb": "rotary", "no_weight_tying": True}
    model = ModelConfig(**{**sizes, **more, **keys})
    plans = build_layers(model, padded_vocab_size=rows, parallel=TensorParallel.single())
    step = folder / "global_step150000"
    plain_model(plans, weights=lambda number, layer: read_weights(step, number, layer, rank=0, size=1))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"rows": 128},
            "word_embeddings.weight is (64, 32), and the model's is (128, 32); give padded_vocab_size: 64",
        ),
        ({"intermediate_size": 64}, "the checkpoint is of another architecture"),
        ({"use_bias_in_mlp": False}, "the file has mlp.dense_h_to_4h.bias, the model has not"),
        ({"norm": "rmsnorm"}, "the model has input_layernorm.scale, the file has not"),
    ],
)
def test_another_model_is_told_with_what_to_do(tmp_path: Path, keys: dict[str, Any], told: str) -> None:
    write_checkpoint_of_neox(tmp_path, MINI)
    with pytest.raises(CheckpointError) as caught:
        fill(tmp_path, **keys)
    assert told in str(caught.value)


def test_what_fits_is_taken_from_any_form(tmp_path: Path) -> None:
    for is_sequential in (False, True):
        write_checkpoint_of_neox(tmp_path / str(is_sequential), replace(MINI, is_sequential=is_sequential))
        fill(tmp_path / str(is_sequential))
