"""`gpt2` in transformers: GPT-2 and CodeParrot. Its linear layers are Conv1D, whose weights are [in, out]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.layouts.huggingface.family import (
    Family,
    Rule,
    activation_obstacles,
    read_activation,
    same,
    shared_obstacles,
    unless,
    write_activation,
)
from megatron.neox.layouts.huggingface.settings import Settings


def _read(settings: Settings) -> dict[str, Any]:
    get = settings.get
    settings.demand("scale_attn_weights", True, reason="attention scores are always divided by sqrt(d) here")
    settings.demand("add_cross_attention", False, reason="attention to an encoder is not implemented")
    hidden = get("n_embd", "hidden_size", default=768)
    positions = get("n_positions", "max_position_embeddings", default=1024)
    return {
        "num_layers": get("n_layer", "num_hidden_layers", default=12),
        "hidden_size": hidden,
        "num_attention_heads": get("n_head", "num_attention_heads", default=12),
        "intermediate_size": get("n_inner", default=None) or 4 * hidden,
        "seq_length": positions,
        "max_position_embeddings": positions,
        "padded_vocab_size": get("vocab_size", default=50257),
        "pos_emb": "learned",
        "layernorm_epsilon": get("layer_norm_epsilon", default=1e-5),
        **read_activation(settings, "activation_function", "gelu_new"),
        "no_weight_tying": not get("tie_word_embeddings", default=True),
        "scale_attn_by_inverse_layer_idx": get("scale_attn_by_inverse_layer_idx", default=False),
        # Scores are computed and normalised in fp32 by the attention kernel, whatever the key says.
        "attention_softmax_in_fp32": get("reorder_and_upcast_attn", default=False),
        "hidden_dropout": get("resid_pdrop", default=0.1),
        "attention_dropout": get("attn_pdrop", default=0.1),
        "init_method_std": get("initializer_range", default=0.02),
    }


def _obstacles(model: ModelConfig) -> list[str]:
    return shared_obstacles(model) + activation_obstacles(model) + unless(
        (model.pos_emb == "learned", f"pos_emb is {model.pos_emb}, not learned"),
        (model.norm.name == "layernorm", f"norm is {model.norm.name}, not layernorm"),
        (model.use_bias_in_norms, "use_bias_in_norms is false"),
        (model.use_bias_in_mlp, "use_bias_in_mlp is false"),
        (model.use_bias_in_attn_linear, "use_bias_in_attn_linear is false"),
        (not model.gpt_j_residual, "gpt_j_residual is true: parallel residual"),
        (set(model.layer_attention) == {"global"}, "attention_config has other layers than global ones"),
        (model.num_query_groups == model.num_attention_heads, f"num_kv_heads is {model.num_kv_heads}: grouped queries"),
    )  # fmt: skip


def _write(model: ModelConfig) -> dict[str, Any]:
    return {
        "activation_function": write_activation(model, "gelu_new"),
        "n_embd": model.hidden_size,
        "n_layer": model.num_layers,
        "n_head": model.num_attention_heads,
        "n_inner": model.mlp_size,
        "n_positions": model.max_position_embeddings,
        "layer_norm_epsilon": model.layernorm_epsilon,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": model.scale_attn_by_inverse_layer_idx,
        "reorder_and_upcast_attn": model.attention_softmax_in_fp32,
        "attn_pdrop": model.attention_dropout,
        "resid_pdrop": model.hidden_dropout,
        "embd_pdrop": model.hidden_dropout,
        # transformers 4 honours the scaling in its plain attention alone, and would choose another one (4.57.6:
        # logits off by 0.5). It reads its own choice from here; transformers 5 needs it not, and passes it over.
        **({"_attn_implementation_internal": "eager"} if model.scale_attn_by_inverse_layer_idx else {}),
    }


def _transposed(ours: str, theirs: str, *shape: int) -> Rule:
    """A Conv1D's weight [in, out] as ours [out, in]."""
    return Rule(ours, {theirs: shape}, lambda parts: parts[0].t(), lambda whole: [whole.t()])


def _fused(ours: str, theirs: str, num_heads: int, *shape: int) -> Rule:
    """Columns [Q; K; V] as our rows by head, [n, 3, d]."""

    def join(parts: Sequence[Tensor]) -> Tensor:
        return parts[0].t().unflatten(0, (3, num_heads, -1)).transpose(0, 1).flatten(0, 2)

    def split(whole: Tensor) -> Sequence[Tensor]:
        return [whole.unflatten(0, (num_heads, 3, -1)).transpose(0, 1).flatten(0, 2).t()]

    return Rule(ours, {theirs: shape}, join, split)


def _rules(model: ModelConfig, number: int) -> list[Rule]:
    h, m, heads = model.hidden_size, model.mlp_size, model.num_attention_heads
    rows = model.padded_vocab_size or 0
    if number == 0:
        positions = (model.max_position_embeddings, h)
        return [
            same("word_embeddings.weight", "transformer.wte.weight", rows, h),
            same("position_embeddings.weight", "transformer.wpe.weight", *positions),
        ]
    if number == model.num_layers + 3:
        return [same(f"norm.{part}", f"transformer.ln_f.{part}", h) for part in ("weight", "bias")]
    if number == model.num_layers + 4:
        return [same("final_linear.weight", "lm_head.weight", rows, h)]
    block = f"transformer.h.{number - 2}."
    return [
        same("input_layernorm.weight", f"{block}ln_1.weight", h),
        same("input_layernorm.bias", f"{block}ln_1.bias", h),
        _fused("attention.query_key_value.weight", f"{block}attn.c_attn.weight", heads, h, 3 * h),
        _fused("attention.query_key_value.bias", f"{block}attn.c_attn.bias", heads, 3 * h),
        _transposed("attention.dense.weight", f"{block}attn.c_proj.weight", h, h),
        same("attention.dense.bias", f"{block}attn.c_proj.bias", h),
        same("post_attention_layernorm.weight", f"{block}ln_2.weight", h),
        same("post_attention_layernorm.bias", f"{block}ln_2.bias", h),
        _transposed("mlp.dense_h_to_4h.weight", f"{block}mlp.c_fc.weight", h, m),
        same("mlp.dense_h_to_4h.bias", f"{block}mlp.c_fc.bias", m),
        _transposed("mlp.dense_4h_to_h.weight", f"{block}mlp.c_proj.weight", m, h),
        same("mlp.dense_4h_to_h.bias", f"{block}mlp.c_proj.bias", h),
    ]


GPT2 = Family(
    model_types=("gpt2",),
    architecture={"gpt2": "GPT2LMHeadModel"},
    read=_read,
    model_type=lambda model: "gpt2",
    obstacles=_obstacles,
    write=_write,
    rules=_rules,
    prefix="transformer.",
    derived=(".attn.bias", ".attn.masked_bias"),
)
