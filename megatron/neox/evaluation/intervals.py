"""Confidence intervals of ratios over files, by the percentile bootstrap (Efron 1979).

A perplexity is a function of two sums over files, log p and a count. Files are what was sampled, and tokens of one
file are alike, so whole files are drawn, with replacement, as many as there are; the interval holds the middle 95%
of what the drawn sums give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

NUM_RESAMPLES = 10_000
_SEED = 1234
_NUMBERS_AT_ONCE = 2**22


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
