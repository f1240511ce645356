"""Whether a checkpoint holds a model's tensors, all of them and no others; every difference is told at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from megatron.neox.config.model import ModelConfig
from megatron.neox.engine.weights import is_parallel, layouts_of, remedy
from megatron.neox.errors import CheckpointError
from megatron.neox.layouts import neox
from megatron.neox.layouts.upstream import UpstreamCheckpoint, check_upstream, is_upstream
from megatron.neox.models.plan import LayerPlan
from megatron.neox.nn.parallel import ShardLayout

Shape = tuple[int, ...]


def refuse_other_layers(
    checkpoint: Path, model: ModelConfig, plans: Sequence[LayerPlan], *, size: int
) -> None:
    """Refuse a checkpoint with layers that the model lacks, without some that it has, or that tells of another model.

    Args:
        model: the config's.
        plans: its layers, as one of `size` tensor ranks builds them.

    Raises:
        CheckpointError: lists these and every other difference.
    """
    told = None
    if is_upstream(checkpoint):
        try:
            check_upstream(checkpoint, model)
        except CheckpointError as error:
            told = error
    found = _stored_layers(checkpoint)
    if told is None and _owned(plans).keys() <= found <= {plan.number for plan in plans}:
        return
    tensors = all_differences(checkpoint, plans, size=size)
    raise CheckpointError("\n".join(str(error) for error in (told, tensors) if error is not None))


def all_differences(checkpoint: Path, plans: Sequence[LayerPlan], *, size: int) -> CheckpointError | None:
    """Every tensor that is missing, of another shape, or not the model's; builds no weights and reads none.

    Args:
        plans: the model's layers, as one of `size` tensor ranks builds them.

    Returns:
        An error to raise; none where all are there.
    """
    owned, found = _owned(plans), _stored_layers(checkpoint)
    lines = [
        f"layer {number} is missing, which belongs in {_first_file(checkpoint, number).name}"
        for number in sorted(owned.keys() - found)
    ]
    surplus = sorted(found - {plan.number for plan in plans})
    lines += [f"layer {number} is there, and not in the model" for number in surplus]
    for number in sorted(owned.keys() & found):
        with torch.device("meta"):
            layer = owned[number].build()
        try:
            lines += _differences(checkpoint, number, layer, size)
        except CheckpointError as error:
            lines.append(str(error))
    if not lines:
        return None
    return CheckpointError(
        "\n".join(
            [
                f"{checkpoint} does not hold the weights of the config's model, and nothing of it is used",
                *(f"  {line}" for line in lines),
            ]
        )
    )


def _stored_layers(checkpoint: Path) -> set[int]:
    if is_upstream(checkpoint):
        return set(UpstreamCheckpoint(checkpoint, sums_biases=False).layer_numbers())
    return set(neox.layer_numbers(checkpoint))


def _first_file(checkpoint: Path, number: int) -> Path:
    if is_upstream(checkpoint):
        return UpstreamCheckpoint(checkpoint, sums_biases=False).path(number, 0)
    return checkpoint / neox.weights_file(number, 0)


def _owned(plans: Sequence[LayerPlan]) -> dict[int, LayerPlan]:
    """The plans that own a file, by its number: of tied layers, the first."""
    keys = [plan.tied_key for plan in plans]
    return {
        plan.number: plan
        for index, plan in enumerate(plans)
        if plan.tied_key is None or keys.index(plan.tied_key) == index
    }


def _differences(checkpoint: Path, number: int, layer: nn.Module, size: int) -> Iterator[str]:
    layouts = layouts_of(layer)
    wanted = {name: _whole(p.shape, layouts[name], size) for name, p in layer.named_parameters()}
    shapes, lacking = _stored_shapes(checkpoint, number, layer, layouts)
    for name in sorted(wanted.keys() | shapes.keys() | lacking.keys()):
        where = f"layer {number}: {name}"
        if name not in wanted:
            yield f"{where} is there, and not in the model"
        elif name not in shapes:
            yield f"{where} is missing"
        elif name in lacking:
            yield f"{where} is missing in {', '.join(lacking[name])}"
        elif shapes[name] != wanted[name]:
            mend = remedy(name, shapes[name], 1)
            yield f"{where} is {shapes[name]}, and the model's is {wanted[name]}; {mend}"


def _stored_shapes(
    checkpoint: Path, number: int, layer: nn.Module, layouts: Mapping[str, ShardLayout]
) -> tuple[dict[str, Shape], dict[str, list[str]]]:
    """Shapes of a layer's whole tensors, and the files that lack one which others have."""
    theirs = (
        UpstreamCheckpoint(checkpoint, sums_biases=is_parallel(layer)) if is_upstream(checkpoint) else None
    )
    shards: dict[str, dict[str, Tensor]] = {}
    for writer in range(theirs.num_writers if theirs else neox.tensor_size_of(checkpoint, number)):
        path = theirs.path(number, writer) if theirs else checkpoint / neox.weights_file(number, writer)
        shards[path.name] = theirs.read_ours(number, writer, layouts) if theirs else neox.read_tensors(path)
    shapes: dict[str, Shape] = {}
    lacking: dict[str, list[str]] = {}
    for name in {name for tensors in shards.values() for name in tensors}:
        parts = [tensors[name] for tensors in shards.values() if name in tensors]
        layout = layouts.get(name, ShardLayout())
        layout = theirs.stored_layout(name, layout, parts) if theirs else layout
        shapes[name] = _whole(parts[0].shape, layout, len(shards))
        if len(parts) < len(shards):
            lacking[name] = [file for file, tensors in shards.items() if name not in tensors]
    return shapes, lacking


def _whole(shape: Sequence[int], layout: ShardLayout, size: int) -> Shape:
    """Shape of the whole tensor that `size` ranks hold shards of."""
    return tuple(length * size if dim == layout.dim else length for dim, length in enumerate(shape))
