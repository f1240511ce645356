"""The weights that training starts from, layer by layer, without a process group or an engine."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from megatron.neox.config import Config
from megatron.neox.engine.grid import DTYPES
from megatron.neox.engine.seeds import seed_layer
from megatron.neox.engine.weights import owner_number
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import models


def initial_model(config: Config, *, padded_vocab_size: int) -> StoredModel:
    """The untrained model of a config: bit for bit what a run of it has at step 0, on any grid.

    One layer is drawn at a time, each time it is read, from the seed and the layer's number.

    Raises:
        UnknownPartError: the config names a part that nothing registered.
    """
    seed, parallel = config.training.seed, TensorParallel.single(dtype=DTYPES[config.precision.dtype])
    plans = models.get(config.model.model)(
        config.model, padded_vocab_size=padded_vocab_size, parallel=parallel
    )
    owners = {plan.number: plan for plan in plans if owner_number(plan, plans) == plan.number}

    def read_layer(number: int) -> dict[str, Tensor]:
        seed_layer(seed, number)
        return {name: p.detach() for name, p in owners[number].build().named_parameters()}

    return StoredModel(
        kind=f"untrained model, seed {seed}",
        path=Path(),
        model=config.model.model_copy(update={"padded_vocab_size": padded_vocab_size}),
        tokenizer=config.tokenizer,
        read_layer=read_layer,
    )
