"""Checkpoints that GPT-NeoX wrote, of 2022 (PolyCoder's) and of today, read by the names of our layers.

::

    a layer file for each layer and rank        layer_02-model_00-model_states.pt: names
    or one file for each rank (no pipeline)     mp_rank_00_model_states.pt["module"]: sequential.2.NAME

What differs from our own, rank by rank:

=============================  ========================================================================
mlp.linear1, mlp.linear2       since 2024-09; before and here mlp.dense_h_to_4h, mlp.dense_4h_to_h
mlp.w1, mlp.w3, mlp.w2         gate, value and way back of a gated MLP before 2024-09
grouped queries                before 2024-11 as [n, 1 + 2 g / n] heads of queries, keys and values; since
                               then, and here, all queries, all keys, all values. Told apart by the MLP's names,
                               wrongly for what was written between 2024-09 and 2024-11
biases after a row-split       under gpt_j_residual each rank adds its own before the ranks are summed, so the
                               bias is their sum; under the sequential residual they are replicas
norms                          replicas, which rounding lets drift apart: their mean
final_linear                   split by hidden size where output_layer_parallelism was "row", 2022's default
inv_freq, masks                functions of the config, left out
=============================  ========================================================================

Source: EleutherAI/gpt-neox at 8229d92 (2022), 96c242eb^ (2024) and ea7aefd8 (2026), `megatron/model/transformer.py`
and `tools/ckpts/convert_neox_to_hf.py`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.errors import CheckpointError
from megatron.neox.layouts import neox
from megatron.neox.layouts.manifest import NAME
from megatron.neox.layouts.torch_files import read_file
from megatron.neox.nn.parallel import ShardLayout

log = logging.getLogger(__name__)

_SEQUENTIAL = re.compile(r"(?:module\.)*(?:sequential\.|layers\.)?(\d+)\.(.+)")

_RENAMED = {
    "mlp.linear1.": "mlp.dense_h_to_4h.",
    "mlp.linear2.": "mlp.dense_4h_to_h.",
    "mlp.w2.": "mlp.dense_4h_to_h.",
}
_LEGACY_MLP = ("mlp.dense_h_to_4h.", "mlp.w1.")
_TRANSFORMER_ENGINE = ("mlp.fc1_", "mlp.fc2_", "mlp.layer_norm_", "attention.qkv.", "attention.proj.")
_ROW_BIASES = ("attention.dense.bias", "mlp.dense_4h_to_h.bias")
_QKV = "attention.query_key_value."
_POST_NORM = "post_attention_layernorm."

# Replicas that drifted apart by rounding differ by far less than this share of their largest element.
_DRIFT = 0.01


def is_upstream(folder: Path) -> bool:
    """Whether a step folder was written by GPT-NeoX: it holds weights, and no manifest of ours."""
    return not (folder / NAME).exists() and neox.holds_weights(folder)


@dataclass(frozen=True)
class UpstreamCheckpoint:
    """A `global_stepN` folder that GPT-NeoX wrote.

    Args:
        folder: the step's folder.
        sums_biases: whether the ranks' biases after a row-split add up: the model has gpt_j_residual.
    """

    folder: Path
    sums_biases: bool

    @cached_property
    def is_sequential(self) -> bool:
        """Whether each rank wrote one file of all layers (pipe_parallel_size 0)."""
        return not neox.layer_numbers(self.folder)

    @cached_property
    def num_writers(self) -> int:
        """Tensor ranks that wrote it.

        Raises:
            CheckpointError: there are no weights, or a rank's file is missing.
        """
        if not self.is_sequential:
            return max(neox.tensor_size_of(self.folder, number) for number in neox.layer_numbers(self.folder))
        ranks = neox.rank_files(self.folder)
        if not ranks or ranks != list(range(len(ranks))):
            missing = min(set(range(len(ranks) + 1)).difference(ranks))
            raise CheckpointError(
                f"{self.path(0, missing)} is missing; give the folder of a whole checkpoint"
            )
        return len(ranks)

    def path(self, number: int, rank: int) -> Path:
        """The file that holds a rank's share of a layer."""
        name = neox.rank_file(rank) if self.is_sequential else neox.weights_file(number, rank)
        return self.folder / name

    def layer_numbers(self) -> list[int]:
        """Numbers of the layers that hold tensors, in order.

        Raises:
            CheckpointError: a file is absent or damaged.
        """
        if not self.is_sequential:
            return neox.layer_numbers(self.folder)
        return sorted({int(match[1]) for name in self._module(0) if (match := _SEQUENTIAL.fullmatch(name))})

    def read_shard(
        self, number: int, layouts: Mapping[str, ShardLayout], *, rank: int = 0, size: int = 1
    ) -> dict[str, Tensor]:
        """Tensor rank `rank`'s share, of `size`, of a layer's tensors; the whole ones by default.

        Args:
            number: the layer, as GPT-NeoX counts.
            layouts: how our layer's tensors are split, by name.

        Raises:
            CheckpointError: a file is absent or damaged, or its names are not the layer's; ranks disagree on what
                they all hold; it was written by Transformer Engine's layers.
        """
        shards = []
        for writer in range(self.num_writers):
            shard = self.read_ours(number, writer, layouts)
            neox.check_names(self.path(number, writer), shard, layouts)
            shards.append(shard)
        result = {}
        for name, layout in layouts.items():
            parts = [shard[name] for shard in shards]
            stored = self.stored_layout(name, layout, parts)
            _refuse_indivisible(self.path(number, 0), name, parts, stored, layout, size)
            if stored == layout and layout.dim is not None and len(parts) == size:
                result[name] = parts[rank]
            else:
                result[name] = layout.split(self._whole(number, name, stored, parts), size)[rank]
        return result

    def read_raw(self, number: int, rank: int) -> dict[str, Tensor]:
        """A rank's tensors of a layer, by the names that they have in the file, buffers included.

        Raises:
            CheckpointError: the file is absent or damaged.
        """
        if not self.is_sequential:
            content = read_file(self.path(number, rank))
        else:
            content = {
                match[2]: value
                for name, value in self._module(rank).items()
                if (match := _SEQUENTIAL.fullmatch(name)) and int(match[1]) == number
            }
        return neox.weights_in(self.path(number, rank), content)

    def read_ours(self, number: int, rank: int, layouts: Mapping[str, ShardLayout]) -> dict[str, Tensor]:
        """A rank's tensors of a layer under our names, whichever there are; see `read_shard`.

        Raises:
            CheckpointError: the file is absent or damaged, or was written by Transformer Engine's layers.
        """
        return self._as_ours(self.read_raw(number, rank), layouts, self.path(number, rank))

    def arguments(self) -> dict[str, Any]:
        """The sizes that the sequential form records of its model; nothing for the other form."""
        return self._rank_file(0).get("args") or {} if self.is_sequential else {}

    def _rank_file(self, rank: int) -> dict[str, Any]:
        return read_file(self.path(0, rank), random_state=True)

    def _module(self, rank: int) -> dict[str, Any]:
        content = self._rank_file(rank)
        module = content.get("module", content)
        if not isinstance(module, dict) or not any(map(_SEQUENTIAL.fullmatch, map(str, module))):
            raise CheckpointError(
                f"{self.path(0, rank)} holds no weights, and {self.folder} has no layer files; "
                "give the folder of a whole checkpoint"
            )
        return {str(name): value for name, value in module.items()}

    def _as_ours(
        self, raw: dict[str, Tensor], layouts: Mapping[str, ShardLayout], path: Path
    ) -> dict[str, Tensor]:
        """A rank's tensors under our names and with our order of rows."""
        foreign = sorted(name for name in raw if name.startswith(_TRANSFORMER_ENGINE))
        if foreign:
            raise CheckpointError(
                f"{path} holds layers of Transformer Engine ({', '.join(foreign)}), which are not read; "
                "convert them with GPT-NeoX's tools to its own layers first"
            )
        is_legacy = any(name.startswith(_LEGACY_MLP) for name in raw)
        tensors = {_renamed(name): tensor for name, tensor in raw.items() if not neox.is_derived(name)}
        for part in ("weight", "bias"):
            gate, value = (tensors.pop(f"mlp.{name}.{part}", None) for name in ("w1", "w3"))
            if gate is not None and value is not None:
                tensors[f"mlp.dense_h_to_4h.{part}"] = torch.cat((value, gate))
            name = _QKV + part
            if is_legacy and name in tensors and len(layouts.get(name, ShardLayout()).sections) == 3:
                tensors[name] = _ungrouped(tensors[name], layouts[name].sections, self.num_writers)
        if self.sums_biases and not any(name.startswith(_POST_NORM) for name in layouts):
            # gpt_j_tied: GPT-NeoX makes the second norm and does not use it.
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_POST_NORM)}
        return tensors

    def stored_layout(self, name: str, layout: ShardLayout, parts: list[Tensor]) -> ShardLayout:
        """How the ranks' parts of a tensor make up the whole, where our layers split it as `layout` says."""
        if name != "final_linear.weight" or len(parts) == 1:
            return layout
        embedding = self.read_raw(0, 0).get("word_embeddings.weight")
        is_row = embedding is not None and parts[0].shape[1] * len(parts) == embedding.shape[1]
        return ShardLayout(1) if is_row else layout

    def _whole(self, number: int, name: str, layout: ShardLayout, parts: list[Tensor]) -> Tensor:
        if layout.dim is not None or len(parts) == 1:
            return layout.merge(parts)
        if name in _ROW_BIASES and self.sums_biases:
            return torch.stack(parts).float().sum(0).to(parts[0].dtype)
        if all(torch.equal(part, parts[0]) for part in parts):
            return parts[0]
        stacked = torch.stack(parts).float()
        mean = stacked.mean(0)
        drift = ((stacked - mean).abs().max() / mean.abs().max()).item()
        if not drift <= _DRIFT:
            what = f"{self.path(number, 0)} and the files of the other ranks hold different {name} (by {drift:.0%})"
            if name in _ROW_BIASES:
                raise CheckpointError(
                    f"{what}, which is one and the same without gpt_j_residual; the checkpoint may have been "
                    "written with gpt_j_residual: true"
                )
            log.warning("%s, which should be replicas; their mean is taken", what)
        return parts[0] if name in _ROW_BIASES else mean.to(parts[0].dtype)


def check_upstream(folder: Path, model: ModelConfig) -> None:
    """Compare what GPT-NeoX's files tell of a model with the config, before any weight is read.

    Raises:
        CheckpointError: they differ in layers, heads, head or rotary positions; lists every difference.
    """
    checkpoint = UpstreamCheckpoint(folder, sums_biases=model.gpt_j_residual)
    numbers = checkpoint.layer_numbers()
    problems = _wrong_layers(numbers, model) + _wrong_arguments(checkpoint.arguments(), model)
    if 2 in numbers:
        layer = checkpoint.read_raw(2, 0)
        problems += _wrong_rotary(layer, model)
        if model.num_query_groups != model.num_attention_heads and "mlp.linear1.weight" in layer:
            log.info(
                "grouped queries are read in GPT-NeoX's order since 2024-11; two months before, under the same names, "
                "it was another"
            )
    if not checkpoint.is_sequential:
        problems += [
            f"{checkpoint.path(number, rank).name} is missing"
            for number in numbers
            for rank in range(checkpoint.num_writers)
            if not checkpoint.path(number, rank).exists()
        ]
    if problems:
        raise CheckpointError(
            "\n".join([f"{folder} is not of the config's model", *(f"  {p}" for p in problems)])
        )


def embedding_rows(folder: Path) -> int:
    """Rows of the embedding of a checkpoint of GPT-NeoX, those of padding included.

    Raises:
        CheckpointError: a file is absent or damaged, or holds no embedding.
    """
    checkpoint = UpstreamCheckpoint(folder, sums_biases=False)
    embedding = checkpoint.read_raw(0, 0).get("word_embeddings.weight")
    if embedding is None:
        raise CheckpointError(f"{checkpoint.path(0, 0)} holds no word_embeddings.weight")
    return checkpoint.num_writers * embedding.shape[0]


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _refuse_indivisible(
    path: Path, name: str, parts: list[Tensor], stored: ShardLayout, layout: ShardLayout, size: int
) -> None:
    """Refuse a tensor that cannot be joined from its parts as `stored` says, or split among `size` ranks.

    Raises:
        CheckpointError: it is of another model than the layouts.
    """
    shape = parts[0].shape
    fits = all(part.shape == shape for part in parts)
    if layout.dim is not None and stored.dim is not None:
        fits = (
            fits
            and max(layout.dim, stored.dim) < len(shape)
            and shape[stored.dim] % sum(stored.sections) == 0
        )
        if fits:
            length = shape[layout.dim] * (len(parts) if layout.dim == stored.dim else 1)
            unit = length // sum(layout.sections)
            fits = all(unit * section % size == 0 for section in layout.sections)
    if not fits:
        raise CheckpointError(
            f"{path}: {name} is {tuple(shape)} on each of {len(parts)} ranks, which the config's model cannot divide "
            f"among {size}; the checkpoint is of another architecture"
        )


def _ungrouped(fused: Tensor, sections: tuple[int, ...], num_writers: int) -> Tensor:
    """Rows of a rank's fused projection of grouped queries, from the order before 2024-11 to [q, k, v].

    [n (1 + 2 g / n) d, ...]: each query head is followed by its share of the keys' and of the values' rows.
    """
    num_heads, num_groups = sections[0] // num_writers, sections[1] // num_writers
    head_size, rest = divmod(fused.shape[0], num_heads + 2 * num_groups)
    share, remainder = divmod(head_size * num_groups, num_heads)
    if rest or remainder:
        return fused  # of another model, whose shape will be refused
    heads = fused.unflatten(0, (num_heads, head_size + 2 * share))
    return torch.cat([part.flatten(0, 1) for part in heads.split((head_size, share, share), 1)])


def _wrong_layers(numbers: list[int], model: ModelConfig) -> list[str]:
    if len(numbers) < 3 or numbers[0] != 0:
        return [f"it holds the layers {numbers}, and not those of a whole model"]
    count = model.num_layers
    layers = len([number for number in numbers if number >= 2]) - 1 - (numbers[-1] - numbers[-2] == 1)
    if layers != count:
        return [f"it has {layers} transformer layers, and num_layers is {count}"]
    has_head = numbers[-1] == count + 4
    if has_head and model.tie_weights:
        return ["it has an output head of its own; give no_weight_tying: true"]
    if not has_head and not model.tie_weights:
        return ["it has no output head; give no_weight_tying: false"]
    expected = [0, *range(2, count + 2), count + 3, *([count + 4] if has_head else [])]
    return [] if numbers == expected else [f"it holds the layers {numbers} instead of {expected}"]


def _wrong_arguments(arguments: Mapping[str, Any], model: ModelConfig) -> list[str]:
    """Differences from the sizes that a checkpoint records."""
    names = ("num_layers", "hidden_size", "num_attention_heads")
    return [
        f"{name}: {arguments[name]} in the checkpoint, {getattr(model, name)} in the config"
        for name in names
        if name in arguments and arguments[name] != getattr(model, name)
    ]


def _wrong_rotary(layer: Mapping[str, Tensor], model: ModelConfig) -> list[str]:
    """Differences from the rotary frequencies that releases before 2024 stored; a note where they are fp16."""
    stored = layer.get("attention.rotary_emb.inv_freq")
    if stored is None or model.pos_emb != "rotary":
        return [] if stored is None else [f"it has rotary positions, and pos_emb is {model.pos_emb}"]
    if stored.shape[0] * 2 != model.rotary_size:
        return [
            f"rotary positions turn {2 * stored.shape[0]} features of a head, and {model.rotary_size} in the config; "
            "num_attention_heads or rotary_pct is another"
        ]
    expected = 1.0 / model.rotary_emb_base ** (torch.arange(0, model.rotary_size, 2) / model.rotary_size)
    if not torch.allclose(stored.float(), expected, rtol=0.01, atol=1e-6):
        return [f"its rotary frequencies are not those of rotary_emb_base {model.rotary_emb_base:g}"]
    if stored.dtype == torch.float16 and "rotary_table" not in model.model_fields_set:
        log.warning(
            "the checkpoint was trained with rotary tables in fp16 (its inv_freq is fp16), and exact ones are used; "
            "rotary_table: fp16_legacy reproduces the training's"
        )
    return []
