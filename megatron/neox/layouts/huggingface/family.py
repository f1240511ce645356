"""What a family of Hugging Face models is to us: its config.json, and its tensors as rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.layouts.huggingface.settings import Settings

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """One tensor of ours, and the tensors of theirs that hold the same numbers.

    Args:
        ours: name in a layer of ours.
        theirs: their names and shapes.
        join: ours from theirs.
        split: theirs from ours; `join` undoes it bit for bit.
    """

    ours: str
    theirs: Mapping[str, Shape]
    join: Callable[[Sequence[Tensor]], Tensor]
    split: Callable[[Tensor], Sequence[Tensor]]


def same(ours: str, theirs: str, *shape: int) -> Rule:
    """The same tensor under another name."""
    return Rule(ours, {theirs: shape}, lambda parts: parts[0], lambda whole: [whole])


def stacked(ours: str, theirs: Mapping[str, Shape]) -> Rule:
    """Theirs one below the other."""
    rows = [shape[0] for shape in theirs.values()]
    return Rule(ours, theirs, lambda parts: torch.cat(list(parts)), lambda whole: whole.split(rows))


def by_head(ours: str, theirs: Mapping[str, Shape], num_heads: int) -> Rule:
    """Queries, keys and values, each [n d, ...], as [n, 3, d, ...]: each head's three together."""

    def join(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([part.unflatten(0, (num_heads, -1)) for part in parts], 1).flatten(0, 2)

    def split(whole: Tensor) -> Sequence[Tensor]:
        return [part.flatten(0, 1) for part in whole.unflatten(0, (num_heads, 3, -1)).unbind(1)]

    return Rule(ours, theirs, join, split)


@dataclass(frozen=True)
class Family:
    """One or several model types that share their tensors' names.

    Args:
        model_types: values of `model_type` in config.json.
        architecture: name of the class in transformers, by model type.
        read: our YAML keys of the model section, from config.json; problems are recorded in it.
        model_type: which of the types a model of ours is.
        obstacles: why a model of ours cannot be one of the family, in words; nothing where it can.
        write: config.json of a model of ours without obstacles, but for what all families share.
        rules: the tensors of a layer of ours by its number.
        prefix: of the names in a model with a head; a file of the model without the head lacks it.
        derived: endings of the names of buffers, which are functions of the config.
        aliases: other names of theirs for the same tensor.
    """

    model_types: tuple[str, ...]
    architecture: Mapping[str, str]
    read: Callable[[Settings], dict[str, Any]]
    model_type: Callable[[ModelConfig], str]
    obstacles: Callable[[ModelConfig], list[str]]
    write: Callable[[ModelConfig], dict[str, Any]]
    rules: Callable[[ModelConfig, int], list[Rule]]
    prefix: str
    derived: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)


def unless(*conditions: tuple[bool, str]) -> list[str]:
    """The words of those conditions that do not hold."""
    return [words for holds, words in conditions if not holds]


def shared_obstacles(model: ModelConfig) -> list[str]:
    """What no family can express."""
    parts = {"norm": model.norm, "activation": model.activation}
    return unless(
        (model.model == "gpt_neox", f"model is {model.model}, a plugin"),
        (not model.gpt_j_tied, "gpt_j_tied is true: one norm for both branches"),
        *((not part.options, f"{key} has options of its own: {part.options}") for key, part in parts.items()),
    )


# Names of one function, transformers' first. The four of the tanh approximation differ in rounding alone.
TANH_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate")
_PLAIN = {"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "mish": "mish"}


def read_activation(settings: Settings, key: str, default: str) -> dict[str, Any]:
    """YAML keys of a plain activation."""
    name = settings.get(key, default=default)
    if name in TANH_GELU:
        return {"activation": "gelu", "bias_gelu_fusion": True}
    if name not in _PLAIN:
        known = ", ".join((*_PLAIN, *TANH_GELU))
        settings.refuse(key, f"the activation is not implemented; these are: {known}")
        return {}
    return {"activation": _PLAIN[name]}


def is_tanh_gelu(model: ModelConfig) -> bool:
    """Whether the MLP computes gelu's tanh approximation."""
    return model.activation.name == "gelu_tanh" or (
        model.activation.name == "gelu" and model.bias_gelu_fusion
    )


def activation_obstacles(model: ModelConfig) -> list[str]:
    """Why an activation is no plain one of transformers."""
    return unless((
        is_tanh_gelu(model) or model.activation.name in _PLAIN,
        f"activation is {model.activation.name}; gelu, gelu_tanh, relu, silu and mish have a name there",
    ))  # fmt: skip


def write_activation(model: ModelConfig, tanh: str) -> str:
    """transformers' name of a plain activation; `tanh` is the one to use for gelu's approximation."""
    return tanh if is_tanh_gelu(model) else _PLAIN[model.activation.name]
