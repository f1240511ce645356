"""`llama` and `mistral` in transformers: rmsnorm, a gated MLP, queries, keys and values apart, perhaps grouped."""

from __future__ import annotations

from typing import Any

from megatron.neox.config import ModelConfig
from megatron.neox.layouts.huggingface.family import (
    Family,
    Rule,
    Shape,
    by_head,
    same,
    shared_obstacles,
    stacked,
    unless,
)
from megatron.neox.layouts.huggingface.settings import Settings

# Activation of the gate, and our name of the gated MLP with it.
_GATES = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu": "geglu",
    "relu": "reglu",
    "sigmoid": "glu",
    "linear": "bilinear",
}


def _read(settings: Settings) -> dict[str, Any]:
    get = settings.get
    is_mistral = settings.content["model_type"] == "mistral"
    hidden, heads = get("hidden_size", default=4096), get("num_attention_heads", default=32)
    if (get("head_dim", default=None) or hidden // heads) != hidden // heads:
        settings.refuse(
            "head_dim",
            f"heads of another size than hidden_size / heads ({hidden // heads}) are not implemented",
        )
    activation = get("hidden_act", default="silu")
    if activation not in _GATES:
        settings.refuse("hidden_act", f"the gate is not implemented; these are: {', '.join(_GATES)}")
    rope = settings.rope(fraction=1.0)
    if rope["rotary_pct"] != 1:
        settings.problems.append(
            f"partial_rotary_factor is {rope['rotary_pct']}: {settings.content['model_type']} turns whole heads"
        )
    window = get("sliding_window", default=4096) if is_mistral else None
    positions = get("max_position_embeddings", default=131072 if is_mistral else 2048)
    return {
        "num_layers": get("num_hidden_layers", default=32),
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_kv_heads": get("num_key_value_heads", default=8 if is_mistral else None) or heads,
        "intermediate_size": get("intermediate_size", default=14336 if is_mistral else 11008),
        "seq_length": positions,
        "max_position_embeddings": positions,
        "padded_vocab_size": get("vocab_size", default=32000),
        "pos_emb": "rotary",
        **rope,
        "norm": "rmsnorm",
        "rms_norm_epsilon": get("rms_norm_eps", default=1e-6),
        "activation": _GATES.get(activation, "swiglu"),
        "mlp_type": "llama",
        "use_bias_in_attn_linear": bool(get("attention_bias", default=False)) and not is_mistral,
        "use_bias_in_mlp": bool(get("mlp_bias", default=False)) and not is_mistral,
        "no_weight_tying": not get("tie_word_embeddings", default=False),
        "attention_dropout": get("attention_dropout", default=0.0),
        "init_method_std": get("initializer_range", default=0.02),
        **({"attention_config": [[["local"], "all"]], "sliding_window_width": window} if window else {}),
    }  # fmt: skip


def _model_type(model: ModelConfig) -> str:
    return "mistral" if set(model.layer_attention) == {"local"} else "llama"


def _obstacles(model: ModelConfig) -> list[str]:
    kinds = set(model.layer_attention)
    has_biases = model.use_bias_in_attn_linear or model.use_bias_in_mlp
    return shared_obstacles(model) + unless(
        (model.pos_emb == "rotary", f"pos_emb is {model.pos_emb}, not rotary"),
        (model.rotary_pct == 1, f"rotary_pct is {model.rotary_pct}, not 1"),
        (model.norm.name == "rmsnorm", f"norm is {model.norm.name}, not rmsnorm"),
        (model.activation.name in _GATES.values(), f"activation is {model.activation.name}, not a gated one"),
        (not model.gpt_j_residual, "gpt_j_residual is true: parallel residual"),
        (kinds in ({"global"}, {"local"}), "attention_config has layers that are not all global or all local"),
        (kinds != {"local"} or not has_biases, "attention is local (mistral) and linear layers have biases"),
        (not model.scale_attn_by_inverse_layer_idx, "scale_attn_by_inverse_layer_idx is true"),
    )  # fmt: skip


def _write(model: ModelConfig) -> dict[str, Any]:
    gates = {gated: gate for gate, gated in reversed(_GATES.items())}
    content = {
        "hidden_act": gates[model.activation.name],
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_query_groups,
        "head_dim": model.head_size,
        "intermediate_size": model.mlp_size,
        "max_position_embeddings": model.max_position_embeddings,
        "rope_theta": model.rotary_emb_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rotary_emb_base},
        "rms_norm_eps": model.rms_norm_epsilon,
        "attention_dropout": model.attention_dropout,
    }
    if _model_type(model) == "mistral":
        return {**content, "sliding_window": model.sliding_window_width}
    return {
        **content,
        "attention_bias": model.use_bias_in_attn_linear,
        "mlp_bias": model.use_bias_in_mlp,
        "pretraining_tp": 1,
    }


def _rules(model: ModelConfig, number: int) -> list[Rule]:
    h, m = model.hidden_size, model.mlp_size
    rows = model.padded_vocab_size or 0
    if number == 0:
        return [same("word_embeddings.weight", "model.embed_tokens.weight", rows, h)]
    if number == model.num_layers + 3:
        return [same("norm.scale", "model.norm.weight", h)]
    if number == model.num_layers + 4:
        return [same("final_linear.weight", "lm_head.weight", rows, h)]
    block = f"model.layers.{number - 2}."
    queries = model.num_attention_heads * model.head_size
    keys = model.num_query_groups * model.head_size
    rules = [
        same("input_layernorm.scale", f"{block}input_layernorm.weight", h),
        same("post_attention_layernorm.scale", f"{block}post_attention_layernorm.weight", h),
    ]
    for part in ("weight", *(("bias",) if model.use_bias_in_attn_linear else ())):
        width = (h,) if part == "weight" else ()
        fused: dict[str, Shape] = {
            f"{block}self_attn.{name}_proj.{part}": (size, *width)
            for name, size in (("q", queries), ("k", keys), ("v", keys))
        }
        ours = f"attention.query_key_value.{part}"
        is_grouped = model.num_query_groups != model.num_attention_heads
        rules.append(stacked(ours, fused) if is_grouped else by_head(ours, fused, model.num_attention_heads))
        shape = (h, queries) if part == "weight" else (h,)
        rules.append(same(f"attention.dense.{part}", f"{block}self_attn.o_proj.{part}", *shape))
    for part in ("weight", *(("bias",) if model.use_bias_in_mlp else ())):
        width = (h,) if part == "weight" else ()
        value_gate: dict[str, Shape] = {
            f"{block}mlp.{name}_proj.{part}": (m, *width) for name in ("up", "gate")
        }
        rules.append(stacked(f"mlp.dense_h_to_4h.{part}", value_gate))
        shape = (h, m) if part == "weight" else (h,)
        rules.append(same(f"mlp.dense_4h_to_h.{part}", f"{block}mlp.down_proj.{part}", *shape))
    return rules


LLAMA = Family(
    model_types=("llama", "mistral"),
    architecture={"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"},
    read=_read,
    model_type=_model_type,
    obstacles=_obstacles,
    write=_write,
    rules=_rules,
    prefix="model.",
    derived=("rotary_emb.inv_freq",),
)
