"""A config as DeepSpeed's JSON. Several of its settings give wrong numbers silently when left at their defaults."""

from __future__ import annotations

from typing import Any

from megatron.neox.config import batch
from megatron.neox.config.config import Config
from megatron.neox.config.optimization import Fp16Config, PrecisionConfig, ZeroConfig


def deepspeed_config(config: Config, *, data_size: int) -> dict[str, Any]:
    """What `deepspeed.initialize(config=...)` takes, for `data_size` data-parallel ranks.

    The optimizer and the schedule are not in it: they are objects of ours, and DeepSpeed would compile its own.

    Raises:
        ConfigError: the batch keys contradict each other or the number of ranks.
    """
    training = batch.resolve(config, data_size=data_size).training
    made: dict[str, Any] = {
        "train_batch_size": training.train_batch_size,
        "train_micro_batch_size_per_gpu": training.train_micro_batch_size_per_gpu,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_clipping": config.optimizer.gradient_clipping,
        "zero_optimization": _zero(config.optimizer.zero_optimization),
        "zero_allow_untested_optimizer": True,
        # With offload_optimizer it would take no optimizer but its own, which a C++ compiler builds at the start.
        "zero_force_ds_cpu_optimizer": False,
        # Activations travel between stages whole: with sequence parallelism DeepSpeed would cut what is not
        # replicated, and its reentrant recomputation cannot begin at an embedding.
        "pipeline": {"use_reentrant": False, "pipe_partitioned": False, "grad_partitioned": False},
        # The loop prints; DeepSpeed's own line comes never.
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": training.wall_clock_breakdown,
    }
    made.update(_precision(config.precision))
    for key, value in config.optimizer.deepspeed_extra_args.items():
        made[key] = value
    return made


def _zero(zero: ZeroConfig) -> dict[str, Any]:
    """The ZeRO block as given. Stage 0 becomes 1: without ZeRO the gradient norm leaves parameters out."""
    return {**zero.model_dump(), "stage": max(1, zero.stage)}


def _precision(precision: PrecisionConfig) -> dict[str, Any]:
    blocks: dict[str, Any] = {}
    if precision.dtype == "fp16":
        blocks["fp16"] = _fp16(precision.fp16)
    if precision.dtype == "bf16":
        blocks["bf16"] = {"enabled": True}
        # bf16 has 8 bits of mantissa: a sum of many micro-batches would lose the small ones.
        blocks["data_types"] = {"grad_accum_dtype": "fp32", **precision.data_types}
    elif precision.data_types:
        blocks["data_types"] = dict(precision.data_types)
    if precision.fp32_allreduce:
        blocks["communication_data_type"] = "fp32"
    return blocks


def _fp16(fp16: Fp16Config) -> dict[str, Any]:
    return {**fp16.model_dump(exclude={"type", "fp16"}), "enabled": True}
