"""PolyCoder's published config.json files: read as what they are, and written again with every value the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.config import ModelConfig
from megatron.neox.config.parameters import num_parameters
from megatron.neox.layouts.huggingface.folder import FAMILIES, family_for
from megatron.neox.layouts.huggingface.gpt_neox import GPT_NEOX
from megatron.neox.layouts.huggingface.settings import Settings

SIZES = {"160M": 162_322_944, "0-4B": 405_334_016, "2-7B": 2_775_208_960}


def published(polycoder: Path, size: str) -> dict[str, Any]:
    return json.loads((polycoder / "hf_config" / f"config_{size}.json").read_text())


@pytest.mark.parametrize("size", SIZES)
def test_the_published_configs_are_the_released_models(polycoder: Path, size: str) -> None:
    settings = Settings(polycoder, published(polycoder, size))
    model = ModelConfig(**GPT_NEOX.read(settings))
    assert settings.problems == []
    assert num_parameters(model, 50304) == SIZES[size]
    assert (model.gpt_j_residual, model.rotary_pct, model.tie_weights) == (False, 1.0, False)
    assert (model.activation.name, model.bias_gelu_fusion) == ("gelu", False)  # erf, as published


@pytest.mark.parametrize("size", SIZES)
def test_they_are_written_as_they_were_published(polycoder: Path, size: str) -> None:
    content = published(polycoder, size)
    model = ModelConfig(**GPT_NEOX.read(Settings(polycoder, content)))
    written = family_for(model).write(model)
    known = {key: content[key] for key in written.keys() & content.keys()}
    assert {key: written[key] for key in known} == known
    assert len(known) >= 10


def test_a_new_model_of_each_family_is_written_as_its_own() -> None:
    sizes = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "seq_length": 16}
    llama = {"norm": "rmsnorm", "activation": "swiglu", "mlp_type": "llama", "use_bias_in_mlp": False}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("gpt_neox", {"pos_emb": "rotary"}),
        ("gpt2", {"pos_emb": "learned"}),
        ("llama", {"pos_emb": "rotary", **llama}),
        ("mistral", {"pos_emb": "rotary", **llama, "use_bias_in_attn_linear": False, "sliding_window_width": 4,
                     "attention_config": [[["local"], "all"]]}),
    ]  # fmt: skip
    for name, keys in cases:
        model = ModelConfig(**{**sizes, "max_position_embeddings": 16, **keys})
        assert family_for(model).model_type(model) == name
        assert sum(not family.obstacles(model) for family in FAMILIES) == 1
