"""Squared ReLU as a plugin: the whole of what a new activation takes."""

from torch import Tensor

from megatron.neox.plugins import activations


@activations.register("squared_relu")
def squared_relu(x: Tensor) -> Tensor:
    """relu(x) ** 2 (So et al. 2021, "Primer", section 4)."""
    return x.relu().square()
