"""A GGUF file read as a model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.errors import CheckpointError, ConfigError
from megatron.neox.layouts.gguf.architecture import (
    ACTIVATION_KEY,
    ARCHITECTURES,
    GPT2,
    GPTNEOX,
    LLAMA,
    ROTARY_TABLE_KEY,
    TIED_KEY,
)
from megatron.neox.layouts.gguf.file import GGUFFile
from megatron.neox.layouts.gguf.tensors import from_gguf, weight_shapes
from megatron.neox.layouts.stored import StoredModel

_EXACT = ("F32", "F16", "BF16")

# Keys of an architecture (after its name) that are read, or change nothing.
_READ = (
    "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon",
    "rope.dimension_count", "rope.freq_base", "use_parallel_residual", "vocab_size",
)  # fmt: skip
# Keys that must have the value that changes nothing.
_NEUTRAL = {"rope.scaling.type": "none", "rope.scale_linear": 1, "expert_count": 0, "expert_used_count": 0}


def open_file(path: Path) -> StoredModel:
    """Open a GGUF of a gptneox, gpt2 or llama: its weights as stored, quantised ones as fp32.

    It carries no tokenizer files; `tokenizer_settings` gives the content of a tokenizer.json.

    Raises:
        CheckpointError: the file is damaged, its tensors are not all there, or it is of an unknown architecture.
        DependencyError: the package gguf is not installed.
    """
    file = GGUFFile.open(path)
    architecture = file.text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{path} is a GGUF of the architecture {architecture}; {', '.join(ARCHITECTURES)} are read"
        )
    _refuse_unknown_keys(file, architecture)
    try:
        model = _model(file, architecture)
    except (ConfigError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a model: {error}") from error
    _check_tensors(file, model, architecture)

    def read_layer(number: int) -> dict[str, Tensor]:
        return from_gguf(number, file.tensor, model, architecture)

    return StoredModel(_kind(file, architecture), path, model, None, read_layer)


def _kind(file: GGUFFile, architecture: str) -> str:
    kinds = sorted({tensor.tensor_type.name for tensor in file.tensors.values() if len(tensor.shape) > 1})
    quantised = any(kind not in _EXACT for kind in kinds)
    return (
        f"GGUF file of a {architecture}, {' and '.join(kinds)}{', dequantised to fp32' if quantised else ''}"
    )


def _refuse_unknown_keys(file: GGUFFile, architecture: str) -> None:
    unknown = []
    for key, field in file.reader.fields.items():
        prefix, _, name = key.partition(".")
        head_size = name in ("attention.key_length", "attention.value_length")
        if prefix != architecture or name in _READ or head_size:
            continue
        value = file.contents(field)
        if name not in _NEUTRAL or value != _NEUTRAL[name]:
            unknown.append(f"  {key}: {str(value)[:60]}")
    if unknown:
        raise CheckpointError("\n".join([f"{file.path} has keys that are not understood here", *unknown]))


def _model(file: GGUFFile, architecture: str) -> ModelConfig:
    """The config that the keys and the tensors' names tell."""
    heads = _size(file, architecture, "attention.head_count")
    hidden = _size(file, architecture, "embedding_length")
    context = _size(file, architecture, "context_length")
    groups = int(file.number(f"{architecture}.attention.head_count_kv") or heads)
    num_layers = _size(file, architecture, "block_count")
    if num_layers > len(file.tensors):
        raise CheckpointError(
            f"{file.path} is to have {num_layers} layers and holds {len(file.tensors)} tensors"
        )
    for part in ("key", "value"):
        if file.number(f"{architecture}.attention.{part}_length") not in (None, hidden // heads):
            raise CheckpointError(
                f"{file.path}: heads of a size other than embedding_length / head_count are not read"
            )
    rows = file.shape("token_embd.weight")[0] if "token_embd.weight" in file.tensors else 1
    keys = {
        "num_layers": num_layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_kv_heads": groups if groups != heads else None,
        "intermediate_size": _size(file, architecture, "feed_forward_length"),
        "seq_length": context,
        "max_position_embeddings": context,
        "padded_vocab_size": rows,
        "no_weight_tying": not _is_tied(file),
        "use_bias_in_attn_linear": "blk.0.attn_output.bias" in file.tensors,
        "use_bias_in_mlp": "blk.0.ffn_down.bias" in file.tensors,
        **_norm(file, architecture),
        **_position(file, architecture, hidden // heads),
        **_activation(file, architecture),
    }
    if architecture == GPTNEOX:
        keys["gpt_j_residual"] = bool(file.number(f"{architecture}.use_parallel_residual") or 0)
    return ModelConfig(**keys)


def _size(file: GGUFFile, architecture: str, name: str) -> int:
    value = file.number(f"{architecture}.{name}")
    if value is None or value < 1:
        raise CheckpointError(f"{file.path}: the key {architecture}.{name} is {value or 'missing'}")
    return int(value)


def _is_tied(file: GGUFFile) -> bool:
    return "output.weight" not in file.tensors or bool(file.number(TIED_KEY) or 0)


def _decimal(value: float) -> float:
    """The shortest number that is the given one in fp32: 1e-05 and not 9.999999747378752e-06."""
    return float(str(numpy.float32(value)))


def _norm(file: GGUFFile, architecture: str) -> dict[str, object]:
    is_rms = architecture == LLAMA
    epsilon = file.number(f"{architecture}.attention.layer_norm{'_rms' if is_rms else ''}_epsilon")
    if epsilon is None:
        raise CheckpointError(f"{file.path}: the epsilon of its norms is missing")
    if is_rms:
        return {"norm": "rmsnorm", "rms_norm_epsilon": _decimal(epsilon)}
    return {"norm": "layernorm", "layernorm_epsilon": _decimal(epsilon)}


def _position(file: GGUFFile, architecture: str, head_size: int) -> dict[str, object]:
    if architecture == GPT2:
        return {"pos_emb": "learned"}
    turned = int(file.number(f"{architecture}.rope.dimension_count") or head_size)
    share = turned / head_size
    return {
        "pos_emb": "rotary",
        # The config rounds down, and turned / head_size may be just below what it stands for.
        "rotary_pct": share if int(head_size * share) == turned else math.nextafter(share, 1),
        "rotary_emb_base": _decimal(file.number(f"{architecture}.rope.freq_base") or 10000),
        "rotary_table": file.text(ROTARY_TABLE_KEY) or "fp32",
    }


def _activation(file: GGUFFile, architecture: str) -> dict[str, object]:
    if architecture == LLAMA:
        return {"activation": "swiglu", "mlp_type": "llama"}
    # llama.cpp computes the tanh approximation whatever the model was trained with.
    return {"activation": "gelu", "bias_gelu_fusion": file.text(ACTIVATION_KEY) != "gelu"}


def _check_tensors(file: GGUFFile, model: ModelConfig, architecture: str) -> None:
    """Every weight must be there in its shape, a bias with all of its kind or none, and nothing else."""
    weights = weight_shapes(model, architecture)
    norm_biases = {"attn_norm", "ffn_norm", "output_norm"} if architecture != LLAMA else set()
    expected = {f"{name}.weight": shape for name, shape in weights.items()}
    for name, shape in weights.items():
        part = name.rpartition(".")[2]
        biased = model.use_bias_in_mlp if part.startswith("ffn_") else model.use_bias_in_attn_linear
        if part in norm_biases or (part.startswith(("attn_", "ffn_")) and biased and "norm" not in part):
            expected[f"{name}.bias"] = shape[:1]
    found = {name: file.shape(name) for name in file.tensors}
    lines = [f"  {name} {expected[name]} is missing" for name in expected.keys() - found.keys()]
    lines += [f"  {name} {found[name]} is not understood" for name in found.keys() - expected.keys()]
    lines += [
        f"  {name} is {found[name]} instead of {expected[name]}"
        for name in found.keys() & expected.keys()
        if found[name] != expected[name]
    ]
    if lines:
        raise CheckpointError("\n".join([f"{file.path} is not a whole {architecture}", *sorted(lines)]))
