from __future__ import annotations

from typing import Any

import pytest

from megatron.neox.config import ModelConfig
from megatron.neox.conversion.hub import is_polycoder, notes_about


def released(**keys: Any) -> ModelConfig:
    """PolyCoder 160M as its published config.json says."""
    sizes = {"num_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "seq_length": 2048}
    others = {"max_position_embeddings": 2048, "padded_vocab_size": 50304, "pos_emb": "rotary"}
    return ModelConfig(**{**sizes, **others, "no_weight_tying": True, **keys})


def test_the_published_gelu_is_noted_with_a_remedy() -> None:
    (note,) = notes_about(released())
    assert "PolyCoder was trained with gelu's tanh approximation" in note
    assert "--gelu tanh" in note
    assert notes_about(released(bias_gelu_fusion=True)) == []


@pytest.mark.parametrize("keys", [{"gpt_j_residual": True}, {"padded_vocab_size": 50432}, {"num_layers": 6}])
def test_other_models_are_not_taken_for_polycoder(keys: dict[str, Any]) -> None:
    assert not is_polycoder(released(**keys))
