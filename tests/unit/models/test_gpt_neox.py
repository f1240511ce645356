"""The list of layers and the plain model made of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron.neox.config import ModelConfig
from megatron.neox.config.parameters import num_parameters
from megatron.neox.errors import UnknownPartError
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import PlainModel, plain_model
from megatron.neox.nn.parallel import TensorParallel


def tiny(**keys: Any) -> ModelConfig:
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 16}
    return ModelConfig(**{**sizes, "max_position_embeddings": 24, "pos_emb": "rotary", **keys})


def build(model: ModelConfig, vocab_size: int = 64) -> PlainModel:
    torch.manual_seed(0)
    plans = build_layers(model, padded_vocab_size=vocab_size, parallel=TensorParallel.single())
    return plain_model(plans)


def test_layers_have_the_numbers_of_gpt_neox_files() -> None:
    plans = build_layers(tiny(), padded_vocab_size=64, parallel=TensorParallel.single())
    assert [plan.number for plan in plans] == [0, 2, 3, 5, 6]
    assert [plan.tied_key for plan in plans] == ["embed", None, None, None, "embed"]


def test_a_layer_s_state_has_the_names_of_its_gpt_neox_file() -> None:
    layers = build(tiny(no_weight_tying=True)).numbered_layers()
    assert set(layers[0].state_dict()) == {"word_embeddings.weight"}
    assert set(layers[2].state_dict()) == {
        "input_layernorm.weight", "input_layernorm.bias",
        "attention.query_key_value.weight", "attention.query_key_value.bias",
        "attention.dense.weight", "attention.dense.bias",
        "post_attention_layernorm.weight", "post_attention_layernorm.bias",
        "mlp.dense_h_to_4h.weight", "mlp.dense_h_to_4h.bias",
        "mlp.dense_4h_to_h.weight", "mlp.dense_4h_to_h.bias",
    }  # fmt: skip
    assert set(layers[5].state_dict()) == {"norm.weight", "norm.bias"}
    assert set(layers[6].state_dict()) == {"final_linear.weight"}


def test_logits_are_sequence_first() -> None:
    assert build(tiny())(torch.zeros(3, 16, dtype=torch.long)).shape == (16, 3, 64)


def test_a_tied_head_uses_the_embedding_s_weight() -> None:
    net = build(tiny())
    assert sorted(net.numbered_layers()) == [0, 2, 3, 5]
    weight = net.get_parameter("layers.00.word_embeddings.weight")
    with torch.no_grad():
        weight[7] = 0
    assert torch.count_nonzero(net(torch.zeros(1, 4, dtype=torch.long))[..., 7]) == 0


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"no_weight_tying": True, "gpt_j_residual": True},
        {"gpt_j_residual": True, "gpt_j_tied": True, "pos_emb": "learned"},
        {"norm": "rmsnorm", "activation": "swiglu", "num_kv_heads": 2, "use_bias_in_mlp": False},
        {"norm": "scalenorm", "activation": "geglu", "use_bias_in_attn_linear": False},
        {"norm": "non_parametric_layernorm", "pos_emb": "alibi"},
        {"use_bias_in_norms": False, "intermediate_size": 40, "pos_emb": "sinusoidal"},
    ],
    ids=str,
)
def test_the_config_counts_the_parameters_that_are_built(keys: dict[str, Any]) -> None:
    built = sum(parameter.numel() for parameter in build(tiny(**keys)).parameters())
    assert built == num_parameters(tiny(**keys), 64)


def test_a_tied_parallel_layer_normalises_once() -> None:
    layer = build(tiny(gpt_j_residual=True, gpt_j_tied=True)).numbered_layers()[2]
    assert not any(name.startswith("post_attention_layernorm") for name in layer.state_dict())


def test_residuals_join_as_drawn() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 2, 32)
    for keys in ({}, {"gpt_j_residual": True}, {"gpt_j_residual": True, "gpt_j_tied": True}):
        layer = build(tiny(**keys, init_method_std=0.3)).numbered_layers()[2]
        attended = x + layer.attention(layer.input_layernorm(x))
        if not keys:
            expected = attended + layer.mlp(layer.post_attention_layernorm(attended))
        elif len(keys) == 1:
            expected = attended + layer.mlp(layer.post_attention_layernorm(x))
        else:
            expected = attended + layer.mlp(layer.input_layernorm(x))
        torch.testing.assert_close(layer(x), expected)


def test_weights_depend_on_the_seed_before_each_layer_alone() -> None:
    plans = build_layers(tiny(), padded_vocab_size=64, parallel=TensorParallel.single())
    torch.manual_seed(100 + 1)
    alone = plans[1].build().state_dict()
    together = plain_model(plans, before_build=lambda index: torch.manual_seed(100 + index))
    for name, tensor in together.numbered_layers()[2].state_dict().items():
        assert torch.equal(tensor, alone[name])


def test_hidden_dropout_acts_in_training_only() -> None:
    net = build(tiny(hidden_dropout=0.5))
    token_ids = torch.zeros(1, 8, dtype=torch.long)
    assert not torch.equal(net(token_ids), net(token_ids))
    net.eval()
    assert torch.equal(net(token_ids), net(token_ids))


def test_bf16_weights_give_bf16_logits() -> None:
    parallel = TensorParallel.single(dtype=torch.bfloat16)
    for keys in ({"pos_emb": "learned"}, {"norm": "rmsnorm", "pos_emb": "alibi"}, {"pos_emb": "sinusoidal"}):
        net = plain_model(build_layers(tiny(**keys), padded_vocab_size=64, parallel=parallel))
        assert {parameter.dtype for parameter in net.parameters()} == {torch.bfloat16}
        assert net(torch.zeros(1, 8, dtype=torch.long)).dtype == torch.bfloat16


def test_an_unknown_attention_is_named() -> None:
    with pytest.raises(UnknownPartError, match="did you mean global"):
        build(tiny(attention_config=[[["globl"], "all"]]))
