"""Learning rates, written out."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.neox.config import ScheduleConfig
from megatron.neox.engine.schedules import build_schedule
from megatron.neox.errors import UnknownPartError


def rates(steps: list[int], **keys: Any) -> list[float]:
    """Rates of steps (counted from 0) of a run of 100 steps whose peak is 1."""
    schedule = build_schedule(ScheduleConfig(**keys), peak=1.0, train_iters=100)
    return [round(schedule(step), 6) for step in steps]


def test_warm_up_is_linear_and_never_zero() -> None:
    assert rates([0, 4, 9], lr_decay_style="constant", warmup=0.1) == [0.1, 0.5, 1.0]


def test_without_warm_up_the_first_step_decays_already() -> None:
    assert rates([0, 98, 99], lr_decay_style="linear", warmup=0) == [0.99, 0.01, 0.0]


def test_constant_stays() -> None:
    assert rates([0, 50, 99, 500], lr_decay_style="constant", warmup=0) == [1.0] * 4


def test_linear_ends_at_zero_or_the_floor() -> None:
    assert rates([9, 54, 99, 200], lr_decay_style="linear", warmup=0.1) == [1.0, 0.5, 0.0, 0.0]
    assert rates([54, 99, 200], lr_decay_style="linear", warmup=0.1, min_lr=0.2) == [0.5, 0.2, 0.2]


def test_cosine_of_today_ends_at_the_floor() -> None:
    keys = {"lr_decay_style": "cosine", "warmup": 0.1, "min_lr": 0.1}
    # a third of the way: 0.1 + 0.9 / 2 * (cos(pi / 3) + 1)
    assert rates([9, 39, 54, 99, 300], **keys) == [1.0, 0.775, 0.55, 0.1, 0.1]


def test_cosine_of_2022_stops_short_of_the_bottom() -> None:
    keys = {"lr_decay_style": "cosine", "warmup": 0.1, "lr_schedule_version": 1}
    # (cos(pi * since / 100) + 1) / 2 at since = 0, 50 and 80; the last 10 steps stand still
    assert rates([9, 59, 89, 99, 300], **keys) == [1.0, 0.5, 0.095492, 0.095492, 0.095492]
    assert rates([99], min_lr=0.2, **keys) == [0.2]


def test_exponential_halves() -> None:
    assert rates([9, 54, 99, 300], lr_decay_style="exponential", warmup=0.1) == [1.0, 0.707107, 0.5, 0.5]


def test_wsd_is_stable_until_its_last_share() -> None:
    keys = {"lr_decay_style": "wsd", "warmup": 0.1, "wsd_decay_fraction": 0.2, "min_lr": 0.1}
    assert rates([9, 79, 89, 99, 300], **keys) == [1.0, 1.0, 0.55, 0.1, 0.1]


def test_warm_up_is_a_share_of_the_decay() -> None:
    assert rates([1, 4, 5], lr_decay_style="linear", warmup=0.1, lr_decay_iters=50) == [0.4, 1.0, 0.977778]
    assert rates([1, 4, 5], lr_decay_style="linear", warmup=0.1, lr_decay_fraction=0.509) == [
        0.4,
        1.0,
        0.977778,
    ]


def test_the_decay_may_end_before_the_run() -> None:
    assert rates([24, 49, 99], lr_decay_style="linear", warmup=0, lr_decay_iters=50) == [0.5, 0.0, 0.0]
    assert rates([24, 49], lr_decay_style="linear", warmup=0, lr_decay_fraction=0.5) == [0.5, 0.0]


def test_an_unknown_schedule_is_named_with_its_key() -> None:
    with pytest.raises(UnknownPartError, match="YAML key 'lr_decay_style'") as caught:
        rates([0], lr_decay_style="cosin")
    assert "did you mean cosine?" in str(caught.value)
