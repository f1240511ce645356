"""`gpt_neox` in transformers: GPT-NeoX, Pythia, PolyCoder. Names and rows are ours; only the frame differs."""

from __future__ import annotations

from typing import Any

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
    hidden = get("hidden_size", default=6144)
    return {
        "num_layers": get("num_hidden_layers", default=44),
        "hidden_size": hidden,
        "num_attention_heads": get("num_attention_heads", default=64),
        "intermediate_size": get("intermediate_size", default=24576),
        "seq_length": get("max_position_embeddings", default=2048),
        "max_position_embeddings": get("max_position_embeddings", default=2048),
        "padded_vocab_size": get("vocab_size", default=50432),
        "pos_emb": "rotary",
        **settings.rope(fraction=0.25),
        "layernorm_epsilon": get("layer_norm_eps", default=1e-5),
        **read_activation(settings, "hidden_act", "gelu"),
        "use_bias_in_attn_linear": get("attention_bias", default=True),
        "gpt_j_residual": get("use_parallel_residual", default=True),
        "no_weight_tying": not get("tie_word_embeddings", default=False),
        "hidden_dropout": get("hidden_dropout", default=0.0),
        "attention_dropout": get("attention_dropout", default=0.0),
        "init_method_std": get("initializer_range", default=0.02),
    }


def _obstacles(model: ModelConfig) -> list[str]:
    return shared_obstacles(model) + activation_obstacles(model) + unless(
        (model.pos_emb == "rotary", f"pos_emb is {model.pos_emb}, not rotary"),
        (model.rotary_size > 0, "rotary_pct turns no feature"),
        (model.norm.name == "layernorm", f"norm is {model.norm.name}, not layernorm"),
        (model.use_bias_in_norms, "use_bias_in_norms is false"),
        (model.use_bias_in_mlp, "use_bias_in_mlp is false"),
        (set(model.layer_attention) == {"global"}, "attention_config has other layers than global ones"),
        (model.num_query_groups == model.num_attention_heads, f"num_kv_heads is {model.num_kv_heads}: grouped queries"),
        (not model.scale_attn_by_inverse_layer_idx, "scale_attn_by_inverse_layer_idx is true"),
    )  # fmt: skip


def _write(model: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_act": write_activation(model, "gelu_pytorch_tanh"),
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "intermediate_size": model.mlp_size,
        "max_position_embeddings": model.max_position_embeddings,
        "rotary_pct": model.rotary_pct,
        "rotary_emb_base": model.rotary_emb_base,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": model.rotary_emb_base,
            "partial_rotary_factor": model.rotary_pct,
        },
        "layer_norm_eps": model.layernorm_epsilon,
        "attention_bias": model.use_bias_in_attn_linear,
        "use_parallel_residual": model.gpt_j_residual,
        "attention_dropout": model.attention_dropout,
        "hidden_dropout": model.hidden_dropout,
        "classifier_dropout": 0.1,
    }


def _rules(model: ModelConfig, number: int) -> list[Rule]:
    h, m = model.hidden_size, model.mlp_size
    rows = model.padded_vocab_size or 0
    if number == 0:
        return [same("word_embeddings.weight", "gpt_neox.embed_in.weight", rows, h)]
    if number == model.num_layers + 3:
        return [same(f"norm.{part}", f"gpt_neox.final_layer_norm.{part}", h) for part in ("weight", "bias")]
    if number == model.num_layers + 4:
        return [same("final_linear.weight", "embed_out.weight", rows, h)]
    shapes = {
        "input_layernorm.weight": (h,),
        "input_layernorm.bias": (h,),
        "attention.query_key_value.weight": (3 * h, h),
        "attention.query_key_value.bias": (3 * h,),
        "attention.dense.weight": (h, h),
        "attention.dense.bias": (h,),
        "post_attention_layernorm.weight": (h,),
        "post_attention_layernorm.bias": (h,),
        "mlp.dense_h_to_4h.weight": (m, h),
        "mlp.dense_h_to_4h.bias": (m,),
        "mlp.dense_4h_to_h.weight": (h, m),
        "mlp.dense_4h_to_h.bias": (h,),
    }
    if not model.use_bias_in_attn_linear:
        del shapes["attention.query_key_value.bias"], shapes["attention.dense.bias"]
    return [same(name, f"gpt_neox.layers.{number - 2}.{name}", *shape) for name, shape in shapes.items()]


GPT_NEOX = Family(
    model_types=("gpt_neox",),
    architecture={"gpt_neox": "GPTNeoXForCausalLM"},
    read=_read,
    model_type=lambda model: "gpt_neox",
    obstacles=_obstacles,
    write=_write,
    rules=_rules,
    prefix="gpt_neox.",
    derived=(".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"),
    aliases={"embed_out.weight": "lm_head.weight"},  # the name in memory since transformers 5
)
