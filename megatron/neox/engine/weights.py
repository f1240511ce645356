"""One layer's weights out of a checkpoint, for this tensor rank, checked against the layer they are for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts import neox
from megatron.neox.layouts.upstream import UpstreamCheckpoint, is_upstream
from megatron.neox.models.plan import LayerPlan
from megatron.neox.nn.parallel import ShardLayout, shard_layout
from megatron.neox.nn.residual import TransformerLayer


def layouts_of(layer: nn.Module) -> dict[str, ShardLayout]:
    """How each parameter of a layer is split over the tensor ranks, by name."""
    return {name: shard_layout(parameter) for name, parameter in layer.named_parameters()}


def owner_number(plan: LayerPlan, plans: Sequence[LayerPlan]) -> int:
    """Number of the layer whose file holds the plan's weights: of tied layers, the first."""
    if plan.tied_key is None:
        return plan.number
    return next(other.number for other in plans if other.tied_key == plan.tied_key)


def read_weights(
    checkpoint: Path, number: int, layer: nn.Module, *, rank: int, size: int
) -> dict[str, Tensor]:
    """The layer's tensors for tensor rank `rank` of `size`, whatever number of ranks wrote them.

    Raises:
        CheckpointError: a file is missing or damaged, or its names or shapes are not the layer's.
    """
    layouts = layouts_of(layer)
    if is_upstream(checkpoint):
        theirs = UpstreamCheckpoint(checkpoint, sums_biases=is_parallel(layer))
        path, weights = theirs.path(number, 0), theirs.read_shard(number, layouts, rank=rank, size=size)
    else:
        num_writers = neox.tensor_size_of(checkpoint, number)
        files = {writer: neox.weights_file(number, writer) for writer in range(num_writers)}
        path = checkpoint / files[0]
        weights = neox.read_shard(checkpoint, files, layouts, rank=rank, size=size)
    for name, parameter in layer.named_parameters():
        # ZeRO 3 keeps the whole shape in an attribute; the parameter itself is empty between steps.
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
        found = tuple(weights[name].shape)
        if found != shape:
            raise CheckpointError(
                f"{path}: {name} is {found}, and the model's is {shape}; {remedy(name, found, size)}"
            )
    return weights


def is_parallel(layer: nn.Module) -> bool:
    """Whether attention and MLP of the layer add to the same input."""
    return isinstance(layer, TransformerLayer) and layer.is_parallel


def remedy(name: str, found: tuple[int, ...], size: int) -> str:
    """What to do about a tensor whose shape on one of `size` ranks is `found`, which is not the model's."""
    if name in ("word_embeddings.weight", "final_linear.weight"):
        return f"give padded_vocab_size: {found[0] * size}, if hidden_size is right"
    if name.startswith("mlp.dense_4h_to_h.weight"):
        width = found[1] * size
        return f"give intermediate_size: {width} (of mlp_type llama, if it is gated), if hidden_size is right"
    return "the checkpoint is of another architecture"
