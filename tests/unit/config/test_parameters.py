"""Counts of parameters, FLOPs and memory; the parameters also against a model that is really built."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.neox.config import Config
from megatron.neox.config.parameters import flops_per_token, memory_per_rank, num_parameters

_MODEL = {
    "num_layers": 2, "hidden_size": 48, "num_attention_heads": 4, "seq_length": 16, "max_position_embeddings": 16,
}  # fmt: skip


def _polycoder(num_layers: int, hidden_size: int, num_attention_heads: int) -> Config:
    keys: dict[str, Any] = {"num_layers": num_layers, "hidden_size": hidden_size}
    keys |= {"num_attention_heads": num_attention_heads, "seq_length": 2048, "max_position_embeddings": 2048}
    keys |= {
        "pos_emb": "rotary",
        "no_weight_tying": True,
        "train_micro_batch_size_per_gpu": 8,
        "precision": "fp16",
    }
    return Config.from_flat(keys)


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [((12, 768, 12), 162_322_944), ((24, 1024, 16), 405_334_016), ((32, 2560, 32), 2_775_208_960)],
)
def test_polycoder(sizes: tuple[int, int, int], parameters: int) -> None:
    assert num_parameters(_polycoder(*sizes).model, 50304) == parameters


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"no_weight_tying": True, "pos_emb": "rotary"},
        {"num_kv_heads": 2, "pos_emb": "alibi"},
        {"activation": "swiglu", "pos_emb": "none"},
        {"activation": "geglu", "intermediate_size": 100, "mlp_multiple_of": 64},
        {"norm": "rmsnorm", "use_bias_in_attn_linear": False, "use_bias_in_mlp": False},
        {"norm": "scalenorm", "pos_emb": "sinusoidal"},
        {"norm": "non_parametric_layernorm"},
        {"use_bias_in_norms": False},
        {"gpt_j_residual": True},
        {"gpt_j_residual": True, "gpt_j_tied": True},
    ],
    ids=str,
)
def test_the_count_is_that_of_a_built_model(keys: dict[str, Any]) -> None:
    from megatron.neox.models.gpt_neox import build_layers
    from megatron.neox.nn.parallel import TensorParallel

    model = Config.from_flat({**_MODEL, **keys}).model
    seen: dict[str, int] = {}
    for plan in build_layers(model, padded_vocab_size=128, parallel=TensorParallel.single()):
        count = sum(parameter.numel() for parameter in plan.build().parameters())
        seen.setdefault(plan.tied_key or str(plan.number), count)
    assert num_parameters(model, 128) == sum(seen.values())


def test_flops_of_a_token() -> None:
    model = _polycoder(12, 768, 12).model
    # 6 (12 L h^2 + V h) + 12 L h s, then with half of the last term, then with the second forward pass.
    assert flops_per_token(model, 50304) == 967_901_184
    assert flops_per_token(model, 50304, causal=True) == 854_654_976
    assert flops_per_token(model, 50304, recompute=True) == 1_213_267_968


def test_a_local_layer_counts_its_window() -> None:
    keys = {**_MODEL, "attention_config": [[["local"], "all"]], "sliding_window_width": 4}
    narrow, wide = Config.from_flat(keys).model, Config.from_flat(_MODEL).model
    assert flops_per_token(wide, 128) - flops_per_token(narrow, 128) == 12 * 2 * 48 * (16 - 4)


def test_memory_is_divided_by_zero_and_the_grid() -> None:
    config = _polycoder(12, 768, 12)
    alone = memory_per_rank(config, 50304, data_size=1)
    assert (alone.weights, alone.gradients, alone.optimizer) == (324_645_888, 324_645_888, 1_947_875_328)
    assert memory_per_rank(config, 50304, data_size=4).optimizer == 486_968_832
    stage3 = Config.from_flat({**config.flat(), "zero_optimization": {"stage": 3}})
    assert memory_per_rank(stage3, 50304, data_size=4).weights == 81_161_472
    recomputing = Config.from_flat({**config.flat(), "checkpoint_activations": True})
    assert memory_per_rank(recomputing, 50304, data_size=1).activations < alone.activations
