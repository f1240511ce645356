"""Bootstrap intervals: what they must be where theory says it."""

from __future__ import annotations

import numpy as np
import pytest

from megatron.neox.evaluation.intervals import NUM_RESAMPLES, mean_interval, ratio_interval, resampled_sums


def test_rows_that_are_alike_leave_no_doubt() -> None:
    sums = resampled_sums({"above": [3.0] * 7, "below": [2.0] * 7})
    assert sums["above"].shape == (NUM_RESAMPLES,)
    assert ratio_interval(sums["above"], sums["below"]) == (1.5, 1.5)


def test_the_interval_is_as_wide_as_the_normal_one() -> None:
    """400 rows of equal weight: mean -+ 1.96 standard errors, within the bootstrap's own noise."""
    values = np.random.Generator(np.random.PCG64(3)).normal(5.0, 2.0, 400)
    sums = resampled_sums({"above": values.tolist(), "below": [1.0] * 400})
    low, high = ratio_interval(sums["above"], sums["below"]) or (0.0, 0.0)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_the_same_rows_give_the_same_interval_however_many_fit_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = {"above": [1.0, 5.0, 2.0], "below": [1.0, 2.0, 3.0]}
    whole = resampled_sums(columns)
    monkeypatch.setattr("megatron.neox.evaluation.intervals._NUMBERS_AT_ONCE", 300)
    pieces = resampled_sums(columns)
    for name, values in whole.items():
        assert (values == pieces[name]).all()


def test_nothing_to_divide_by() -> None:
    assert ratio_interval(np.array([1.0]), np.array([0.0])) is None


def test_values_that_belong_together_are_drawn_together() -> None:
    """Ten holes of each function that stand or fall together tell no more than one of each."""
    alone = np.random.Generator(np.random.PCG64(7)).integers(0, 2, 40).astype(float)
    groups = [str(number) for number in range(40) for _ in range(10)]
    found, expected = mean_interval(np.repeat(alone, 10), groups=groups), mean_interval(alone)
    assert found.mean == expected.mean
    error = alone.std() / np.sqrt(40)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, abs=0.1 * error)
    assert mean_interval(np.repeat(alone, 10)).high < found.high
