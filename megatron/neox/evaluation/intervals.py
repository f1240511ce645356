"""Confidence intervals of means over tasks and of ratios over files, by the percentile bootstrap (Efron 1979).

Tasks and files are what was sampled from the world, so they are drawn whole, with replacement, as many as there are;
an interval holds the middle 95% of what the draws give. Tokens of one file are alike, and so are the holes of one
function: they are drawn together. Between two models the same draws serve both: what makes a task hard, it makes hard
for either, and falls out of the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 10_000
_SEED = 1234
_NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Estimate:
    """A mean, and the interval that holds the middle 95% of the resampled means."""

    mean: float
    low: float
    high: float


def resampled_sums(columns: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """Sums [NUM_RESAMPLES] of each column over the same draws of rows; a fixed seed gives the same every time."""
    arrays = {name: np.asarray(values, np.float64) for name, values in columns.items()}
    count = len(next(iter(arrays.values())))
    generator = np.random.Generator(np.random.PCG64(_SEED))
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, count))
    sums: dict[str, list[np.ndarray]] = {name: [] for name in arrays}
    for start in range(0, NUM_RESAMPLES, at_once):
        drawn = generator.integers(count, size=(min(at_once, NUM_RESAMPLES - start), count))
        for name, values in arrays.items():
            sums[name].append(values[drawn].sum(1))
    return {name: np.concatenate(parts) for name, parts in sums.items()}


def ratio_interval(
    above: np.ndarray, below: np.ndarray, *, share: float = 0.95
) -> tuple[float, float] | None:
    """The middle `share` of above / below; none where no draw has anything below."""
    ratios = above[below > 0] / below[below > 0]
    if not len(ratios):
        return None
    low, high = np.quantile(ratios, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def mean_interval(
    values: np.ndarray, *, groups: Sequence[str] | None = None, share: float = 0.95
) -> Estimate:
    """The mean of values [n] and the middle `share` of its bootstrap distribution, the same at every call.

    Args:
        groups: what each value belongs to [n], such as the function of a hole; whole groups are drawn. None means
            that every value was sampled by itself.
    """
    if groups is None:
        sums, counts = np.asarray(values, np.float64), np.ones(len(values))
    else:
        places = np.unique(np.asarray(groups), return_inverse=True)[1]
        sums, counts = np.bincount(places, weights=values), np.bincount(places)
    drawn = resampled_sums({"sums": sums.tolist(), "counts": counts.tolist()})
    ends = ratio_interval(drawn["sums"], drawn["counts"], share=share)
    assert ends is not None, "a mean of nothing"
    return Estimate(float(np.mean(values)), *ends)


def paired_difference(ours: np.ndarray, theirs: np.ndarray, *, share: float = 0.95) -> Estimate:
    """The mean of ours - theirs, both [tasks] in the same order, with its interval."""
    return mean_interval(ours - theirs, share=share)
