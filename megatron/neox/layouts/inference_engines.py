"""What the formats of inference engines (GGUF, CTranslate2) share: what they cannot say, and how rows are ordered."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.errors import DependencyError, Problem, VocabularyError

log = logging.getLogger(__name__)


def import_package(name: str) -> ModuleType:
    """An optional package of the exports.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"this format needs the package {name}, which cannot be imported ({error}); install it with "
            "`pip install -r requirements/requirements-export.txt`"
        ) from error


def activation_of(model: ModelConfig) -> str:
    """The activation that the model computes: `bias_gelu_fusion` makes gelu its tanh approximation."""
    name = {"swish": "silu"}.get(model.activation.name, model.activation.name)
    return "gelu_tanh" if name == "gelu" and model.bias_gelu_fusion else name


def common_obstacles(model: ModelConfig) -> list[Problem]:
    """What no engine's format can say of an architecture."""
    found: list[Problem] = []
    if model.model != "gpt_neox":
        found.append(Problem.about(["model"], f"model {model.model} is an architecture of its own"))
    kinds = set(model.layer_attention) - {"global"}
    if (model.sliding_window_width or 0) >= model.max_position_embeddings:
        kinds.discard("local")  # its window holds every text that the model takes
    if kinds:
        found.append(
            Problem.about(["attention_config"], f"attention {', '.join(sorted(kinds))} is not exported")
        )
    for key in ("norm", "activation"):
        if getattr(model, key).options:
            found.append(Problem.about([key], f"{key} has options, which only this toolkit knows"))
    return found


def not_among(key: str, value: str, known: tuple[str, ...], where: str) -> list[Problem]:
    """A problem where the value of a key is none that `where` knows."""
    if value in known:
        return []
    return [Problem.about([key], f"{key} is {value}; {where} computes {' or '.join(known)}")]


def warn_of_rotary_table(model: ModelConfig, engine: str) -> None:
    """Say that the engine computes angles in fp32 where the model was trained with fp16's."""
    if model.pos_emb == "rotary" and model.rotary_table == "fp16_legacy":
        log.warning(
            "the model has rotary_table fp16_legacy; %s computes the angles in fp32, so that its answers differ "
            "from ours, the more the longer the text (0.4 rad at position 1024)",
            engine,
        )


def attention_scale(model: ModelConfig, layer: int) -> float:
    """What the scores of a layer (from 0) are multiplied by besides 1 / sqrt(head size); 1 / (layer + 1) or 1."""
    return 1 / (layer + 1) if model.scale_attn_by_inverse_layer_idx else 1.0


def split_rows(fused: Tensor, model: ModelConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of queries [n d, ...], keys and values [g d, ...] of a fused weight or bias in GPT-NeoX's order."""
    n, g, d = model.num_attention_heads, model.num_query_groups, model.head_size
    if n != g:
        queries, keys, values = fused.split((n * d, g * d, g * d))
        return queries, keys, values
    heads = fused.view(n, 3, d, *fused.shape[1:])
    queries, keys, values = (heads[:, part].reshape(n * d, *fused.shape[1:]) for part in range(3))
    return queries, keys, values


def fuse_rows(queries: Tensor, keys: Tensor, values: Tensor, model: ModelConfig) -> Tensor:
    """The inverse of `split_rows`."""
    if model.num_query_groups != model.num_attention_heads:
        return torch.cat((queries, keys, values))
    shape = (model.num_attention_heads, model.head_size, *queries.shape[1:])
    return torch.stack([part.view(shape) for part in (queries, keys, values)], dim=1).flatten(0, 2)


def unused_piece(number: int) -> str:
    """Name of an id that means nothing: a padding row of the embedding, or a gap in the vocabulary."""
    return f"<|unused_{number}|>"


def pieces_by_id(settings: Mapping[str, Any], rows: int) -> list[str]:
    """The piece of each row of the embedding, from a tokenizer.json.

    Raises:
        VocabularyError: the vocabulary has more ids than the model has rows.
    """
    vocabulary = settings["model"]["vocab"]
    if isinstance(vocabulary, list):  # unigram models: [piece, score] by id
        pieces = {number: piece for number, (piece, _) in enumerate(vocabulary)}
    else:
        pieces = {int(number): piece for piece, number in vocabulary.items()}
    pieces |= {int(token["id"]): token["content"] for token in settings.get("added_tokens", [])}
    if max(pieces) >= rows:
        raise VocabularyError(
            f"the tokenizer has ids up to {max(pieces)} and the model {rows} rows; "
            "give the vocabulary that the model was trained with"
        )
    return [pieces.get(number, unused_piece(number)) for number in range(rows)]
