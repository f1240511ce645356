"""Confidence intervals of means over tasks, by the percentile bootstrap (Efron 1979).

Tasks are what was sampled from the world, so whole tasks are drawn, with replacement. Between two models the same
draws serve both: what makes a task hard, it makes hard for either, and falls out of the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 10_000
_SEED = 1234
_TASKS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Estimate:
    """A mean, and the interval that holds the middle 95% of the resampled means."""

    mean: float
    low: float
    high: float


def mean_interval(values: np.ndarray, *, share: float = 0.95) -> Estimate:
    """The mean of values [tasks] and the middle `share` of its bootstrap distribution, the same at every call."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    at_once = max(1, _TASKS_AT_ONCE // len(values))
    means = [
        values[generator.integers(len(values), size=(min(at_once, NUM_RESAMPLES - done), len(values)))].mean(
            1
        )
        for done in range(0, NUM_RESAMPLES, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - share) / 2, (1 + share) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def paired_difference(ours: np.ndarray, theirs: np.ndarray, *, share: float = 0.95) -> Estimate:
    """The mean of ours - theirs, both [tasks] in the same order, with its interval."""
    return mean_interval(ours - theirs, share=share)
