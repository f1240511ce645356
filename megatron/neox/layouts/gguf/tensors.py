"""GGUF's tensors from those of our layers, and back.

==================================  ===========================================================================
ours                                GGUF (blk.N. in layer N + 2)
==================================  ===========================================================================
word_embeddings                     token_embd [V, h]
position_embeddings                 position_embd [positions, h]
input_layernorm                     attn_norm [h]
attention.query_key_value           attn_qkv [(n + 2 g) d, h], all queries, all keys, all values; llama: attn_q,
                                    attn_k (rows of a head by pairs that turn together), attn_v
attention.dense                     attn_output [h, h]
post_attention_layernorm            ffn_norm [h]
mlp.dense_h_to_4h                   ffn_up [m, h]; gated: the value is ffn_up, the gate ffn_gate
mlp.dense_4h_to_h                   ffn_down [h, m]
norm                                output_norm [h]
final_linear                        output [V, h]
==================================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.layouts.gguf.architecture import GPT2, GPTNEOX, LLAMA
from megatron.neox.layouts.inference_engines import attention_scale, fuse_rows, split_rows

# Modules whose tensors change their names only.
_NAMES = {
    "word_embeddings": "token_embd",
    "position_embeddings": "position_embd",
    "input_layernorm": "attn_norm",
    "attention.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
    "norm": "output_norm",
    "final_linear": "output",
}
_QUERY_KEY_VALUE, _UP = "attention.query_key_value", "mlp.dense_h_to_4h"


def to_gguf(
    number: int, tensors: Mapping[str, Tensor], model: ModelConfig, architecture: str
) -> dict[str, Tensor]:
    """GGUF's tensors of one of our layers, by name; works on meta tensors too.

    Biases that `gptneox` and `gpt2` insist on and the model lacks are zeros. The queries of a model with
    scale_attn_by_inverse_layer_idx are scaled, in fp32, since no architecture of llama.cpp scales by the layer.
    """
    is_block = 2 <= number < model.num_layers + 2
    prefix = f"blk.{number - 2}." if is_block else ""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        leaf = "weight" if leaf == "scale" else leaf
        if module == _QUERY_KEY_VALUE:
            for part, rows in _attention(tensor, model, architecture, layer=number - 2).items():
                found[f"{part}.{leaf}"] = rows
        elif module == _UP and model.is_gated:
            found[f"ffn_up.{leaf}"], found[f"ffn_gate.{leaf}"] = tensor.chunk(2)
        else:
            found[f"{_NAMES[module]}.{leaf}"] = tensor
    if is_block and model.gpt_j_residual and model.gpt_j_tied:
        found |= {
            name.replace("attn_", "ffn_"): t for name, t in found.items() if name.startswith("attn_norm.")
        }
    if number == 0 and model.tie_weights and architecture == GPTNEOX:
        found["output.weight"] = found["token_embd.weight"]  # llama.cpp ties the other architectures only
    if architecture != LLAMA and number != 0:
        found = _with_biases(found)
    return {prefix + name: tensor for name, tensor in found.items()}


def _attention(fused: Tensor, model: ModelConfig, architecture: str, *, layer: int) -> dict[str, Tensor]:
    queries, keys, values = split_rows(fused, model)
    scale = attention_scale(model, layer)
    if scale != 1:
        queries = (queries.float() * scale).to(queries.dtype)
    if architecture != LLAMA:
        return {"attn_qkv": torch.cat((queries, keys, values))}
    queries = _by_pairs(queries, model.num_attention_heads)
    return {"attn_q": queries, "attn_k": _by_pairs(keys, model.num_query_groups), "attn_v": values}


def _by_pairs(rows: Tensor, heads: int) -> Tensor:
    """Rows of each head so ordered that features i and i + d / 2, which turn together, are neighbours."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _by_halves(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `_by_pairs`."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _with_biases(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    whole = dict(found)
    for name, tensor in found.items():
        module, _, leaf = name.rpartition(".")
        bias = f"{module}.bias"
        if leaf == "weight" and module != "output" and bias not in found:
            whole[bias] = torch.zeros(tensor.shape[0], dtype=tensor.dtype, device=tensor.device)
    return whole


def weight_shapes(model: ModelConfig, architecture: str) -> dict[str, tuple[int, ...]]:
    """Shape of every weight that a GGUF of the model holds, by module; a bias has the first dimension."""
    h, m, d = model.hidden_size, model.mlp_size, model.head_size
    queries, keys = model.num_attention_heads * d, model.num_query_groups * d
    assert model.padded_vocab_size is not None
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (model.padded_vocab_size, h)}
    if architecture == GPT2:
        shapes["position_embd"] = (model.max_position_embeddings, h)
    block: dict[str, tuple[int, ...]] = {"attn_norm": (h,), "ffn_norm": (h,)}
    block |= {"attn_output": (h, queries), "ffn_up": (m, h), "ffn_down": (h, m)}
    if architecture == LLAMA:
        block |= {"attn_q": (queries, h), "attn_k": (keys, h), "attn_v": (keys, h), "ffn_gate": (m, h)}
    else:
        block["attn_qkv"] = (queries + 2 * keys, h)
    for layer in range(model.num_layers):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    shapes["output_norm"] = (h,)
    if not model.tie_weights or architecture == GPTNEOX:
        shapes["output"] = (model.padded_vocab_size, h)
    return shapes


def from_gguf(
    number: int, read: Callable[[str], Tensor | None], model: ModelConfig, architecture: str
) -> dict[str, Tensor]:
    """The tensors of one of our layers.

    Args:
        read: a tensor of the GGUF by its name, none where it has no such tensor. Modules have all of their
            biases or none (`read.py` checks that).
    """
    if number == 0:
        modules = ["word_embeddings"] + (["position_embeddings"] if architecture == GPT2 else [])
        return _renamed(modules, "", read)
    if number == model.num_layers + 4:
        return _renamed(["final_linear"], "", read)
    scale = {"norm.weight": "norm.scale"} if architecture == LLAMA else {}
    if number == model.num_layers + 3:
        return {scale.get(name, name): tensor for name, tensor in _renamed(["norm"], "", read).items()}
    prefix = f"blk.{number - 2}."
    found = _renamed(["input_layernorm", "post_attention_layernorm"], prefix, read)
    if architecture == LLAMA:
        found = {name.replace(".weight", ".scale"): tensor for name, tensor in found.items()}
    linear = _renamed(["attention.dense", _UP, "mlp.dense_4h_to_h"], prefix, read)
    if architecture == LLAMA:
        linear |= _gated(linear, prefix, read)
    return found | linear | _fused(prefix, read, model, architecture)


def _renamed(modules: list[str], prefix: str, read: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for module in modules:
        for leaf in ("weight", "bias"):
            tensor = read(f"{prefix}{_NAMES[module]}.{leaf}")
            if tensor is not None:
                found[f"{module}.{leaf}"] = tensor
    return found


def _gated(
    linear: Mapping[str, Tensor], prefix: str, read: Callable[[str], Tensor | None]
) -> dict[str, Tensor]:
    gates = {leaf: read(f"{prefix}ffn_gate.{leaf}") for leaf in ("weight", "bias")}
    return {
        f"{_UP}.{leaf}": torch.cat((linear[f"{_UP}.{leaf}"], gate))
        for leaf, gate in gates.items()
        if gate is not None and f"{_UP}.{leaf}" in linear
    }


def _fused(
    prefix: str, read: Callable[[str], Tensor | None], model: ModelConfig, architecture: str
) -> dict[str, Tensor]:
    n, g, d = model.num_attention_heads, model.num_query_groups, model.head_size
    found: dict[str, Tensor] = {}
    for leaf in ("weight", "bias"):
        if architecture == LLAMA:
            queries, keys, values = (read(f"{prefix}attn_{part}.{leaf}") for part in "qkv")
            if queries is None or keys is None or values is None:
                continue
            queries, keys = _by_halves(queries, n), _by_halves(keys, g)
        else:
            rows = read(f"{prefix}attn_qkv.{leaf}")
            if rows is None:
                continue
            queries, keys, values = rows.split((n * d, g * d, g * d))
        found[f"{_QUERY_KEY_VALUE}.{leaf}"] = fuse_rows(queries, keys, values, model)
    return found
