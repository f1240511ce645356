"""CTranslate2: a folder that its `Generator` runs, on CPUs with int8 weights too.

::

    model.bin          weights and sizes, as the package's TransformerDecoderModelSpec writes them
    config.json        special tokens, epsilon of the norms
    vocabulary.json    the piece of each id
    tokenizer.json     for whoever calls the engine, which takes pieces and not texts

It is a format to write: nothing reads a model back from it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.errors import CheckpointError, ConfigError, OutputError, Problem, UserError, did_you_mean
from megatron.neox.files import write_whole
from megatron.neox.layouts.inference_engines import (
    activation_of,
    attention_scale,
    common_obstacles,
    import_package,
    not_among,
    pieces_by_id,
    split_rows,
    warn_of_rotary_table,
)
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.tokenizers import Tokenizer
from megatron.neox.tokenizers.export import tokenizer_json

log = logging.getLogger(__name__)

QUANTIZATIONS = (
    "float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16", "int8_bfloat16",
)  # fmt: skip
"""Types of the weights that can be asked for; int8_float16 has int8 matrices and float16 elsewhere."""

# Our activations by CTranslate2's, a gated one by that of its gate.
_ACTIVATIONS = {
    "gelu": "GELU", "gelu_tanh": "GELUTanh", "relu": "RELU", "silu": "SWISH",
    "geglu": "GELU", "reglu": "RELU", "swiglu": "SWISH", "glu": "Sigmoid",
}  # fmt: skip

# Bias of the logits of padding rows, which training taught nothing: the lowest that float16 holds.
_NEVER = torch.finfo(torch.float16).min


def write_folder(
    stored: StoredModel, folder: Path, *, tokenizer: Tokenizer, quantization: str | None = None
) -> None:
    """Write a folder that CTranslate2 runs; it appears when it is complete.

    The package has the whole model in memory while it writes. Ids of padding rows are never generated.

    Args:
        quantization: type of the weights, one of QUANTIZATIONS; none keeps the stored one.

    Raises:
        ConfigError: CTranslate2 cannot compute the model; every obstacle is listed.
        VocabularyError: the tokenizer cannot be written as a tokenizer.json, or does not fit the model.
        UserError: there is no such type.
        OutputError: the folder exists.
        CheckpointError: the weights are not whole.
        DependencyError: the package ctranslate2 is not installed.
    """
    specs = import_package("ctranslate2.specs")
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise UserError(
            f"CTranslate2 is not written with weights of type {quantization}{did_you_mean(quantization, QUANTIZATIONS)}"
            f"\n  known: {', '.join(QUANTIZATIONS)}"
        )
    _refuse_obstacles(stored.model)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists; give another --output, or remove it")
    settings = tokenizer_json(tokenizer)
    assert stored.model.padded_vocab_size is not None
    pieces = pieces_by_id(settings, stored.model.padded_vocab_size)
    warn_of_rotary_table(stored.model, "CTranslate2")
    spec = _spec(specs, stored, num_ids=tokenizer.vocab_size)
    spec.register_vocabulary(pieces)
    eod = pieces[tokenizer.eod]
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = eod
    spec.config.layer_norm_epsilon = _epsilon(stored.model)
    spec.validate()
    spec.optimize(quantization=quantization)
    _save(spec, folder, settings)


def _save(spec: Any, folder: Path, settings: Mapping[str, Any]) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        spec.save(str(partial))
        write_whole(partial / "tokenizer.json", json.dumps(settings, ensure_ascii=False, indent=1) + "\n")
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_obstacles(model: ModelConfig) -> None:
    where = "CTranslate2"
    found = common_obstacles(model)
    found += not_among("pos_emb", model.pos_emb, ("rotary", "learned"), where)
    found += not_among("norm", model.norm.name, ("layernorm", "rmsnorm"), where)
    found += not_among("activation", activation_of(model), tuple(_ACTIVATIONS), where)
    if model.gpt_j_residual and model.norm.name == "rmsnorm":
        found.append(Problem.about(["gpt_j_residual"], f"{where} has no parallel residual with rmsnorm"))
    if found:
        raise ConfigError([Problem("", "the model cannot be written for CTranslate2"), *found])


def _epsilon(model: ModelConfig) -> float:
    return model.rms_norm_epsilon if model.norm.name == "rmsnorm" else model.layernorm_epsilon


def _spec(specs: ModuleType, stored: StoredModel, *, num_ids: int) -> Any:
    """The package's description of the model, filled with the weights."""
    model = stored.model
    spec = specs.TransformerDecoderModelSpec.from_config(
        model.num_layers,
        model.num_attention_heads,
        activation=specs.Activation[_ACTIVATIONS[activation_of(model)]],
        ffn_glu=model.is_gated,
        rms_norm=model.norm.name == "rmsnorm",
        rotary_dim=model.rotary_size if model.pos_emb == "rotary" else None,
        rotary_interleave=False,
        rotary_base=model.rotary_emb_base,
        parallel_residual=model.gpt_j_residual,
        shared_layer_norm=model.gpt_j_residual and model.gpt_j_tied,
        num_heads_kv=model.num_query_groups if model.num_query_groups != model.num_attention_heads else None,
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    for number in stored.layer_numbers:
        # Copies, since the package quantises in place.
        tensors = {name: tensor.clone() for name, tensor in stored.read_layer(number).items()}
        try:
            if number == 0:
                _fill_embedding(decoder, tensors)
            elif number == model.num_layers + 3:
                _fill_norm(decoder.layer_norm, tensors, "norm")
            elif number == model.num_layers + 4:
                decoder.projection.weight = tensors["final_linear.weight"]
            else:
                _fill_layer(decoder.layer[number - 2], tensors, model, layer=number - 2)
        except KeyError as error:
            raise CheckpointError(f"{stored.path}: layer {number} has no tensor {error}") from error
    if model.tie_weights:
        decoder.projection.weight = decoder.embeddings.weight
    rows = decoder.projection.weight.shape[0]
    if num_ids < rows:
        decoder.projection.bias = torch.zeros(rows, dtype=decoder.projection.weight.dtype)
        decoder.projection.bias[num_ids:] = _NEVER
    return spec


def _fill_embedding(decoder: Any, tensors: Mapping[str, Tensor]) -> None:
    decoder.embeddings.weight = tensors["word_embeddings.weight"]
    if "position_embeddings.weight" in tensors:
        decoder.position_encodings.encodings = tensors["position_embeddings.weight"]


def _fill_layer(spec: Any, tensors: Mapping[str, Tensor], model: ModelConfig, *, layer: int) -> None:
    attention = spec.self_attention
    if model.gpt_j_residual and model.gpt_j_tied:
        _fill_norm(spec.shared_layer_norm, tensors, "input_layernorm")
    else:
        first, second = (
            (spec.input_layer_norm, spec.post_attention_layer_norm)
            if model.gpt_j_residual
            else (attention.layer_norm, spec.ffn.layer_norm)
        )
        _fill_norm(first, tensors, "input_layernorm")
        _fill_norm(second, tensors, "post_attention_layernorm")
    name = "attention.query_key_value"
    rows = {leaf: torch.cat(split_rows(tensors[f"{name}.{leaf}"], model)) for leaf in _leaves(tensors, name)}
    _fill_linear(attention.linear[0], rows)
    _fill_linear(attention.linear[1], _named(tensors, "attention.dense"))
    _fill_linear(spec.ffn.linear_1, _named(tensors, "mlp.dense_4h_to_h"))
    up = _named(tensors, "mlp.dense_h_to_4h")
    if model.is_gated:
        halves = {leaf: tensor.chunk(2) for leaf, tensor in up.items()}  # value, gate
        _fill_linear(spec.ffn.linear_0, {leaf: pair[1] for leaf, pair in halves.items()})
        _fill_linear(spec.ffn.linear_0_noact, {leaf: pair[0] for leaf, pair in halves.items()})
    else:
        _fill_linear(spec.ffn.linear_0, up)
    scale = attention_scale(model, layer)
    if scale != 1:
        attention.queries_scale = scale / math.sqrt(model.head_size)


def _leaves(tensors: Mapping[str, Tensor], module: str) -> list[str]:
    return ["weight", *(["bias"] if f"{module}.bias" in tensors else [])]


def _named(tensors: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    return {leaf: tensors[f"{module}.{leaf}"] for leaf in _leaves(tensors, module)}


def _fill_linear(spec: Any, tensors: Mapping[str, Tensor]) -> None:
    for leaf, tensor in tensors.items():
        setattr(spec, leaf, tensor)


def _fill_norm(spec: Any, tensors: Mapping[str, Tensor], module: str) -> None:
    if hasattr(spec, "beta"):
        spec.gamma = tensors[f"{module}.weight"]
        bias = tensors.get(f"{module}.bias")
        spec.beta = torch.zeros_like(spec.gamma) if bias is None else bias
    else:
        spec.gamma = tensors[f"{module}.scale"]
