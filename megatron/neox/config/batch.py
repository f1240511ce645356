"""Batch algebra: sequences in a step = micro-batch x accumulation steps x data-parallel ranks."""

from __future__ import annotations

from megatron.neox.config.config import Config
from megatron.neox.config.training import TrainingConfig
from megatron.neox.errors import ConfigError, Problem

_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


def resolve(config: Config, *, data_size: int) -> Config:
    """The config with all three batch keys filled in for `data_size` data-parallel ranks.

    Raises:
        ConfigError: none of train_batch_size and train_micro_batch_size_per_gpu is given, or what is given
            contradicts itself or the number of ranks.
    """
    train, micro, steps = _sizes(config.training, data_size)
    filled = config.training.model_copy(
        update={
            "train_batch_size": train,
            "train_micro_batch_size_per_gpu": micro,
            "gradient_accumulation_steps": steps,
        }
    )
    return config.model_copy(update={"training": filled})


def _sizes(training: TrainingConfig, data_size: int) -> tuple[int, int, int]:
    """Sequences in a step, sequences in a micro-batch, accumulation steps."""
    train = training.train_batch_size
    micro = training.train_micro_batch_size_per_gpu
    steps = training.gradient_accumulation_steps
    if micro is not None and (train is None or steps is not None):
        steps = steps or 1
        total = micro * steps * data_size
        if train not in (None, total):
            raise ConfigError(
                [
                    Problem.about(
                        _KEYS,
                        f"train_batch_size is {train}, but train_micro_batch_size_per_gpu {micro} x "
                        f"gradient_accumulation_steps {steps} x {data_size} data-parallel ranks is {total}; "
                        "leave one of the three out",
                    )
                ]
            )
        return total, micro, steps
    if train is None:
        raise ConfigError(
            [
                "no batch size: train_micro_batch_size_per_gpu is missing, the sequences in one forward pass "
                "of one rank (or train_batch_size, those of a step over all ranks)"
            ]
        )
    if micro is not None:
        return train, micro, _divide(train, data_size, micro, "train_micro_batch_size_per_gpu")
    return train, _divide(train, data_size, steps or 1, "gradient_accumulation_steps"), steps or 1


def _divide(train: int, data_size: int, part: int, key: str) -> int:
    if train % (part * data_size):
        raise ConfigError(
            [
                Problem.about(
                    ("train_batch_size", key),
                    f"train_batch_size {train} cannot be divided by {key} {part} x {data_size} data-parallel ranks; "
                    f"make it a multiple of {part * data_size}",
                )
            ]
        )
    return train // (part * data_size)
