"""A model written as a GGUF file, a layer at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.errors import CheckpointError, UserError, did_you_mean
from megatron.neox.files import appearing
from megatron.neox.layouts.gguf.architecture import (
    ACTIVATION_KEY,
    GPT2,
    LLAMA,
    ROTARY_TABLE_KEY,
    TIED_KEY,
    choose_architecture,
    warn_of_differences,
)
from megatron.neox.layouts.gguf.tensors import to_gguf
from megatron.neox.layouts.gguf.vocabulary import Vocabulary, vocabulary_of
from megatron.neox.layouts.inference_engines import activation_of, import_package
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)

QUANTIZATIONS = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Types of the weights that can be asked for."""

_TORCH_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_EMBEDDINGS = ("token_embd.weight", "output.weight")
_ALWAYS_F32 = "position_embd.weight"


def write_file(
    stored: StoredModel, path: Path, *, tokenizer: Tokenizer, quantization: str | None = None
) -> None:
    """Write a GGUF that llama.cpp runs; it appears when it is complete.

    Args:
        quantization: type of the matrices, one of QUANTIZATIONS; none keeps the stored one. Norms, biases and
            learned positions are f32 always; embedding and head are q8_0 at least.

    Raises:
        ConfigError: no architecture of llama.cpp computes the model.
        VocabularyError: llama.cpp cannot encode as the tokenizer does, or it does not fit the model.
        UserError: there is no such type.
        CheckpointError: the weights are not whole, or have values beyond the type.
        DependencyError: the package gguf is not installed.
    """
    gguf = import_package("gguf")
    model = stored.model
    architecture = choose_architecture(model)
    wanted = _wanted_type(gguf, quantization)
    assert model.padded_vocab_size is not None
    vocabulary = vocabulary_of(tokenizer, model.padded_vocab_size)
    warn_of_differences(model)
    plan = {
        name: _type_of(gguf, name, tensor, wanted)
        for name, tensor in _tensors(stored, architecture, plan=True)
    }
    _say_unquantized(plan, wanted)
    with appearing(path) as partial:
        writer = gguf.GGUFWriter(partial, architecture)
        try:
            _add_architecture(writer, model, architecture, path.stem)
            writer.add_file_type(_file_type(gguf, plan))
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _add_vocabulary(writer, vocabulary)
            _write_tensors(gguf, writer, stored, architecture, plan)
        finally:
            writer.close()


def _wanted_type(gguf: Any, quantization: str | None) -> Any:
    if quantization is None:
        return None
    if quantization.lower() not in QUANTIZATIONS:
        hint = did_you_mean(quantization.lower(), QUANTIZATIONS)
        raise UserError(
            f"GGUF is not written with weights of type {quantization}{hint}\n  known: {', '.join(QUANTIZATIONS)}"
        )
    return gguf.GGMLQuantizationType[quantization.upper()]


def _tensors(stored: StoredModel, architecture: str, *, plan: bool) -> Iterator[tuple[str, Tensor]]:
    """GGUF's tensors in the order of the layers; for a plan without their values."""
    for number in stored.layer_numbers:
        tensors = stored.read_layer(number)
        if plan:
            tensors = {name: tensor.to("meta") for name, tensor in tensors.items()}
        yield from to_gguf(number, tensors, stored.model, architecture).items()


def _type_of(gguf: Any, name: str, tensor: Tensor, wanted: Any) -> tuple[Any, torch.Size]:
    """Type and shape of a tensor in the file."""
    types = gguf.GGMLQuantizationType
    if tensor.dim() == 1 or name == _ALWAYS_F32:
        return types.F32, tensor.shape
    if wanted is None:
        stored = {dtype: kind for kind, dtype in _TORCH_TYPES.items()}
        return types[stored.get(tensor.dtype, "F32")], tensor.shape
    if wanted.name not in _TORCH_TYPES and name in _EMBEDDINGS:
        wanted = types.Q8_0
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return (wanted if tensor.shape[-1] % block == 0 else types.F16), tensor.shape


def _say_unquantized(plan: dict[str, tuple[Any, torch.Size]], wanted: Any) -> None:
    if wanted is None or wanted.name in _TORCH_TYPES:
        return
    kept = [name for name, (kind, _) in plan.items() if kind.name == "F16"]
    if kept:
        log.warning(
            "%d matrices stay f16 (%s the first): their rows are no multiple of %s's blocks of 32",
            len(kept),
            kept[0],
            wanted.name.lower(),
        )


def _file_type(gguf: Any, plan: dict[str, tuple[Any, torch.Size]]) -> Any:
    """llama.cpp's name for the mixture: the type of the first layer's widest matrix."""
    kind = plan["blk.0.ffn_up.weight"][0].name
    return gguf.LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"]


def _add_architecture(writer: Any, model: ModelConfig, architecture: str, name: str) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_vocab_size(model.padded_vocab_size)
    writer.add_context_length(model.max_position_embeddings)
    writer.add_embedding_length(model.hidden_size)
    writer.add_block_count(model.num_layers)
    writer.add_feed_forward_length(model.mlp_size)
    writer.add_head_count(model.num_attention_heads)
    writer.add_head_count_kv(model.num_query_groups)
    if architecture == LLAMA:
        writer.add_layer_norm_rms_eps(model.rms_norm_epsilon)
    else:
        writer.add_layer_norm_eps(model.layernorm_epsilon)
    if architecture != GPT2:
        writer.add_rope_dimension_count(model.rotary_size)
        writer.add_rope_freq_base(model.rotary_emb_base)
        writer.add_string(ROTARY_TABLE_KEY, model.rotary_table)
    if architecture == "gptneox":
        writer.add_parallel_residual(model.gpt_j_residual)
    writer.add_string(ACTIVATION_KEY, activation_of(model))
    writer.add_bool(TIED_KEY, model.tie_weights)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pattern)
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.eod)
    writer.add_eos_token_id(vocabulary.eod)
    if vocabulary.unknown is not None:
        writer.add_unk_token_id(vocabulary.unknown)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _write_tensors(
    gguf: Any, writer: Any, stored: StoredModel, architecture: str, plan: dict[str, tuple[Any, torch.Size]]
) -> None:
    """All tensors of the plan, no more than a layer of them in memory."""
    import numpy

    for name, (kind, shape) in plan.items():
        block, size = gguf.GGML_QUANT_SIZES[kind]
        byte_shape = (*shape[:-1], shape[-1] // block * size)
        num_bytes = shape.numel() // block * size
        writer.add_tensor_info(name, byte_shape, numpy.dtype("uint8"), num_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in _tensors(stored, architecture, plan=False):
        writer.write_tensor_data(_bytes(gguf, name, tensor, plan[name][0]))


def _bytes(gguf: Any, name: str, tensor: Tensor, kind: Any) -> Any:
    """The bytes of a tensor in a type of GGUF."""
    if kind.name not in _TORCH_TYPES:
        return gguf.quants.quantize(tensor.float().contiguous().numpy(), kind)
    cast = tensor.to(_TORCH_TYPES[kind.name])
    if cast.isinf().any() and not tensor.isinf().any():
        raise CheckpointError(f"{name} has values that {kind.name} cannot hold; write it as f32 or bf16")
    return cast.contiguous().view(torch.uint8).numpy()
