"""The same weights give the same logits here and in transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from megatron.neox.config import ModelConfig
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import PlainModel, plain_model
from megatron.neox.nn.loss import cross_entropy
from megatron.neox.nn.parallel import TensorParallel

VOCAB_SIZE, LAYERS, HIDDEN, HEADS, LENGTH = 96, 3, 64, 4, 48


def build(**keys: Any) -> PlainModel:
    model = ModelConfig(
        num_layers=LAYERS,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        seq_length=LENGTH,
        max_position_embeddings=LENGTH,
        no_weight_tying=True,
        pos_emb="rotary",
        **keys,
    )
    plans = build_layers(model, padded_vocab_size=VOCAB_SIZE, parallel=TensorParallel.single())
    return plain_model(plans).eval()


def randomise(model: Any) -> dict[str, Tensor]:
    """Weights whose biases and norms are not trivial either."""
    for name, parameter in model.named_parameters():
        parameter.data.normal_(1.0 if "norm.weight" in name else 0.0, 0.1)
    return model.state_dict()


def token_ids() -> Tensor:
    return torch.randint(0, VOCAB_SIZE, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def worst_difference(ours: PlainModel, theirs: Any) -> float:
    with torch.no_grad():
        expected = theirs(token_ids()).logits
        assert expected.abs().max() > 1
        return (ours(token_ids()).transpose(0, 1) - expected).abs().max().item()


def gpt_neox_pair(rotary_pct: float, parallel_residual: bool, activation: str) -> tuple[PlainModel, Any]:
    """Our model and transformers', with the same weights."""
    torch.manual_seed(1)
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS}
    config = GPTNeoXConfig(
        **sizes,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=LENGTH,
        rotary_pct=rotary_pct,
        use_parallel_residual=parallel_residual,
        hidden_act=activation,
        tie_word_embeddings=False,
    )
    theirs = GPTNeoXForCausalLM(config).eval()
    ours = build(
        rotary_pct=rotary_pct,
        gpt_j_residual=parallel_residual,
        bias_gelu_fusion=activation == "gelu_pytorch_tanh",
    )
    for number, state in gpt_neox_layers(randomise(theirs)).items():
        ours.numbered_layers()[number].load_state_dict(state)
    return ours, theirs


def gpt_neox_layers(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """transformers' tensors under the numbers and names of our layers."""
    layers = {0: {"word_embeddings.weight": tensors["gpt_neox.embed_in.weight"]}}
    for index in range(LAYERS):
        prefix = f"gpt_neox.layers.{index}."
        layers[index + 2] = {
            name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)
        }
    norm = "gpt_neox.final_layer_norm."
    layers[LAYERS + 3] = {f"norm.{part}": tensors[norm + part] for part in ("weight", "bias")}
    layers[LAYERS + 4] = {"final_linear.weight": tensors["lm_head.weight"]}
    return layers


@pytest.mark.parametrize("rotary_pct", [0.25, 1.0])
@pytest.mark.parametrize("parallel_residual", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh"])
def test_logits_equal_transformers_gpt_neox(
    rotary_pct: float, parallel_residual: bool, activation: str
) -> None:
    assert worst_difference(*gpt_neox_pair(rotary_pct, parallel_residual, activation)) < 1e-5


def test_loss_and_gradients_equal_transformers_gpt_neox() -> None:
    ours, theirs = gpt_neox_pair(1.0, False, "gelu")
    labels = token_ids().flip(0)
    loss = cross_entropy(ours(token_ids()), labels, parallel=TensorParallel.single())
    expected = theirs(token_ids(), labels=labels, shift_labels=labels).loss
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    gradients = gpt_neox_layers({name: weight.grad for name, weight in theirs.named_parameters()})
    for number, layer in ours.numbered_layers().items():
        for name, weight in layer.named_parameters():
            torch.testing.assert_close(weight.grad, gradients[number][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_logits_equal_transformers_llama(num_kv_heads: int) -> None:
    torch.manual_seed(2)
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS}
    config = LlamaConfig(
        **sizes,
        num_attention_heads=HEADS,
        num_key_value_heads=num_kv_heads,
        intermediate_size=112,
        max_position_embeddings=LENGTH,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    theirs = LlamaForCausalLM(config).eval()
    weights = randomise(theirs)
    ours = build(
        norm="rmsnorm",
        rms_norm_epsilon=1e-6,
        activation="swiglu",
        intermediate_size=112,
        num_kv_heads=num_kv_heads,
        use_bias_in_attn_linear=False,
        use_bias_in_mlp=False,
    )
    layers = ours.numbered_layers()
    layers[0].load_state_dict({"word_embeddings.weight": weights["model.embed_tokens.weight"]})
    for index in range(LAYERS):
        layers[index + 2].load_state_dict(llama_layer(weights, index, num_kv_heads))
    layers[LAYERS + 3].load_state_dict({"norm.scale": weights["model.norm.weight"]})
    layers[LAYERS + 4].load_state_dict({"final_linear.weight": weights["lm_head.weight"]})
    assert worst_difference(ours, theirs) < 1e-5


def llama_layer(weights: dict[str, Tensor], index: int, num_kv_heads: int) -> dict[str, Tensor]:
    """One layer in our names: queries, keys, values fused; the MLP's value before its gate."""
    prefix = f"model.layers.{index}."
    q, k, v = (weights[f"{prefix}self_attn.{x}_proj.weight"] for x in "qkv")
    if num_kv_heads == HEADS:  # each head's queries, keys and values together
        fused = torch.stack([x.view(HEADS, -1, HIDDEN) for x in (q, k, v)], 1).reshape(-1, HIDDEN)
    else:
        fused = torch.cat((q, k, v))
    value, gate = weights[f"{prefix}mlp.up_proj.weight"], weights[f"{prefix}mlp.gate_proj.weight"]
    return {
        "input_layernorm.scale": weights[f"{prefix}input_layernorm.weight"],
        "attention.query_key_value.weight": fused,
        "attention.dense.weight": weights[f"{prefix}self_attn.o_proj.weight"],
        "post_attention_layernorm.scale": weights[f"{prefix}post_attention_layernorm.weight"],
        "mlp.dense_h_to_4h.weight": torch.cat((value, gate)),
        "mlp.dense_4h_to_h.weight": weights[f"{prefix}mlp.down_proj.weight"],
    }
