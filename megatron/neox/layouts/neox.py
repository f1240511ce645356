"""GPT-NeoX's checkpoint layout: one file for each layer and tensor rank.

::

    global_step150000/
      layer_00-model_00-model_states.pt     embedding            word_embeddings.weight
      layer_02-model_00-model_states.pt     first layer          attention.query_key_value.weight, ...
      ...                                   (01 and L + 2 were functions: no files)
      layer_15-model_00-model_states.pt     final norm, L + 3    norm.weight, norm.bias
      layer_16-model_00-model_states.pt     head, L + 4          final_linear.weight
    latest                                  the name of the newest folder

Source: GPT-NeoX's `gpt2_model.py` and DeepSpeed's `PipelineModule.save_state_dict`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.torch_files import check_weight, read_file
from megatron.neox.nn.parallel import ShardLayout

LATEST = "latest"
"""File that names the newest step's folder."""

_STEP = re.compile(r"global_step(\d+)")
_LAYER = re.compile(r"layer_(\d+)-model_(\d+)-model_states\.pt")
_RANK = re.compile(r"mp_rank_(\d+)_model_states\.pt")

# Buffers of older releases, which are functions of the config.
_DERIVED = (
    "inv_freq", "attention.masked_bias", "attention.bias", "alibi_embed.slopes", "_extra_state",
)  # fmt: skip


def step_folder(step: int) -> str:
    """Name of a step's folder."""
    return f"global_step{step}"


def step_of(name: str) -> int | None:
    """Step of a folder's name, none for other names."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match else None


def steps_in(folder: Path) -> dict[int, Path]:
    """The step folders of a checkpoint folder, newest first."""
    found = {step_of(path.name): path for path in folder.iterdir() if path.is_dir()}
    return {step: found[step] for step in sorted((s for s in found if s is not None), reverse=True)}


def checkpoints_below(folder: Path) -> list[Path]:
    """Folders of checkpoints right inside a folder that is none: of a tar that was unpacked one folder deeper."""
    found = {path.parent for path in folder.glob("*/global_step*") if step_of(path.name) is not None}
    return sorted(found)


def weights_file(number: int, tensor_rank: int) -> str:
    """Name of a layer's weights; `number` counts as GPT-NeoX does."""
    return f"layer_{number:02d}-model_{tensor_rank:02d}-model_states.pt"


def rank_file(tensor_rank: int) -> str:
    """Name of the file that GPT-NeoX writes for each rank: all layers' weights where there is no pipeline."""
    return f"mp_rank_{tensor_rank:02d}_model_states.pt"


def rank_files(folder: Path) -> list[int]:
    """The tensor ranks that have such a file, in order."""
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _RANK.fullmatch(path.name)))


def holds_weights(folder: Path) -> bool:
    """Whether a step folder has files that may hold weights, of this software or of GPT-NeoX."""
    return bool(layer_numbers(folder) or rank_files(folder))


def is_derived(name: str) -> bool:
    """Whether a tensor of that name is a buffer of older releases, a function of the config."""
    return name.endswith(_DERIVED)


def tensor_size_of(folder: Path, number: int = 0) -> int:
    """Tensor ranks that a step folder was written by: how many files the layer has.

    Raises:
        CheckpointError: the layer has no file, or one of its files is missing.
    """
    layers = [match for path in folder.iterdir() if (match := _LAYER.fullmatch(path.name))]
    ranks = sorted(int(match[2]) for match in layers if int(match[1]) == number)
    if not ranks or ranks != list(range(len(ranks))):
        missing = weights_file(number, min(set(range(len(ranks) + 1)).difference(ranks)))
        raise CheckpointError(f"{folder}: {missing} is missing; give the folder of a whole checkpoint")
    return len(ranks)


def layer_numbers(folder: Path) -> list[int]:
    """Numbers of the layers that have files, in order."""
    return sorted({int(match[1]) for path in folder.iterdir() if (match := _LAYER.fullmatch(path.name))})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The weights of one file; derived buffers of older releases are left out.

    Raises:
        CheckpointError: see `read_file` and `check_weight`.
    """
    return {
        name: tensor for name, tensor in weights_in(path, read_file(path)).items() if not is_derived(name)
    }


def weights_in(path: Path, content: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors among a file's values, buffers of older releases included.

    Raises:
        CheckpointError: see `check_weight`; buffers are not looked at.
    """
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        if not (isinstance(name, str) and is_derived(name)):
            check_weight(path, name, tensor)
    return tensors


def read_state(
    folder: Path, file_of: Mapping[int, str], layouts: Mapping[str, ShardLayout], *, rank: int, size: int
) -> dict[str, dict[str, Tensor]]:
    """One tensor rank's share of a layer's optimizer state, `state[kind][name]`, like `read_shard`.

    Raises:
        CheckpointError: a file is absent or damaged.
    """
    if len(file_of) == size:
        return read_file(folder / file_of[rank])
    shards = [read_file(folder / name) for _, name in sorted(file_of.items())]
    return {
        kind: {
            name: _reshard([shard[kind][name] for shard in shards], layouts[name], rank=rank, size=size)
            for name in shards[0][kind]
        }
        for kind in shards[0]
    }


def read_shard(
    folder: Path,
    file_of: Mapping[int, str],
    layouts: Mapping[str, ShardLayout],
    *,
    rank: int,
    size: int,
) -> dict[str, Tensor]:
    """One tensor rank's share of a layer, from files written by any number of tensor ranks.

    Args:
        folder: a step's folder.
        file_of: file name by the tensor rank that wrote it.
        layouts: how each tensor is split, by its name; names not among them are left out.
        rank: tensor rank to read for, of `size`.

    Raises:
        CheckpointError: a file is damaged, or lacks a tensor.
    """
    if len(file_of) == size:
        tensors = read_tensors(folder / file_of[rank])
        check_names(folder / file_of[rank], tensors, layouts)
        return {name: tensors[name] for name in layouts}
    shards = [read_tensors(folder / name) for _, name in sorted(file_of.items())]
    for name, shard in zip(file_of.values(), shards):
        check_names(folder / name, shard, layouts)
    return {
        name: _reshard([shard[name] for shard in shards], layout, rank=rank, size=size)
        for name, layout in layouts.items()
    }


def _reshard(shards: Sequence[Tensor], layout: ShardLayout, *, rank: int, size: int) -> Tensor:
    return layout.split(layout.merge(shards), size)[rank]


def check_names(path: Path, tensors: Mapping[str, Tensor], layouts: Mapping[str, ShardLayout]) -> None:
    """Compare the names in a file with those of the layer that it is for.

    Raises:
        CheckpointError: they differ; lists both ways.
    """
    missing, surplus = sorted(layouts.keys() - tensors.keys()), sorted(tensors.keys() - layouts.keys())
    if missing or surplus:
        lines = [f"{path} is of another architecture"]
        lines += [f"  the model has {name}, the file has not" for name in missing]
        lines += [f"  the file has {name}, the model has not" for name in surplus]
        raise CheckpointError("\n".join(lines))
