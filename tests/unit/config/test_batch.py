"""Batch algebra, DeepSpeed's JSON, and the padded vocabulary."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.neox.config import Config
from megatron.neox.config.batch import resolve
from megatron.neox.config.deepspeed import deepspeed_config
from megatron.neox.config.vocabulary import padded_vocab_size
from megatron.neox.errors import ConfigError

_MODEL = {
    "num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 32, "max_position_embeddings": 32,
}  # fmt: skip


def _config(**keys: Any) -> Config:
    return Config.from_flat({**_MODEL, **keys})


@pytest.mark.parametrize(
    ("train", "micro", "steps", "data_size", "resolved"),
    [
        (None, 8, 4, 4, (128, 8, 4)),
        (None, 8, None, 2, (16, 8, 1)),
        (128, 8, 4, 4, (128, 8, 4)),
        (128, 8, None, 4, (128, 8, 4)),
        (128, None, 4, 4, (128, 8, 4)),
        (128, None, None, 4, (128, 32, 1)),
    ],
)
def test_two_sizes_make_the_third(
    train: int | None, micro: int | None, steps: int | None, data_size: int, resolved: tuple[int, int, int]
) -> None:
    given = _config(
        train_batch_size=train, train_micro_batch_size_per_gpu=micro, gradient_accumulation_steps=steps
    )
    training = resolve(given, data_size=data_size).training
    assert resolved == (
        training.train_batch_size, training.train_micro_batch_size_per_gpu, training.gradient_accumulation_steps
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "no batch size: train_micro_batch_size_per_gpu is missing"),
        ({"train_batch_size": 9, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2},
         "train_batch_size is 9, but train_micro_batch_size_per_gpu 2 x gradient_accumulation_steps 2 x "
         "2 data-parallel ranks is 8; leave one of the three out"),
        ({"train_batch_size": 9, "train_micro_batch_size_per_gpu": 2},
         "train_batch_size 9 cannot be divided by train_micro_batch_size_per_gpu 2 x 2 data-parallel ranks; "
         "make it a multiple of 4"),
        ({"train_batch_size": 9, "gradient_accumulation_steps": 3},
         "train_batch_size 9 cannot be divided by gradient_accumulation_steps 3 x 2 data-parallel ranks; "
         "make it a multiple of 6"),
    ],
)  # fmt: skip
def test_contradictions(keys: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(_config(**keys), data_size=2)
    assert str(caught.value).startswith(message)


def test_deepspeed_json_of_fp32() -> None:
    made = deepspeed_config(
        _config(train_micro_batch_size_per_gpu=2, zero_optimization={"stage": 0, "overlap_comm": True}),
        data_size=3,
    )
    assert made == {
        "train_batch_size": 6,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 1, "overlap_comm": True},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "pipeline": {"use_reentrant": False, "pipe_partitioned": False, "grad_partitioned": False},
        "steps_per_print": 2147483647,
        "wall_clock_breakdown": False,
    }


def test_deepspeed_json_of_half_precision() -> None:
    bf16 = deepspeed_config(_config(train_micro_batch_size_per_gpu=1, precision="bfloat16"), data_size=1)
    assert bf16["bf16"] == {"enabled": True}
    assert bf16["data_types"] == {"grad_accum_dtype": "fp32"}
    fp16 = deepspeed_config(
        _config(
            train_micro_batch_size_per_gpu=1, fp16={"fp16": True, "enabled": True, "initial_scale_power": 12}
        ),
        data_size=1,
    )
    assert fp16["fp16"] == {
        "enabled": True, "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 12, "hysteresis": 2,
        "min_loss_scale": 1, "consecutive_hysteresis": False, "auto_cast": False,
    }  # fmt: skip
    assert "data_types" not in fp16


def test_extra_blocks_are_passed_on() -> None:
    made = deepspeed_config(
        _config(
            train_micro_batch_size_per_gpu=1, deepspeed_extra_args={"dump_state": True}, fp32_allreduce=True
        ),
        data_size=1,
    )
    assert made["dump_state"] is True
    assert made["communication_data_type"] == "fp32"


@pytest.mark.parametrize(
    ("size", "divisible_by", "tensor_size", "padded"),
    [(50257, 128, 1, 50304), (50257, 128, 2, 50432), (4096, 128, 1, 4096), (257, 1, 2, 258)],
)
def test_padded_vocabulary(size: int, divisible_by: int, tensor_size: int, padded: int) -> None:
    assert padded_vocab_size(size, divisible_by=divisible_by, tensor_size=tensor_size) == padded
