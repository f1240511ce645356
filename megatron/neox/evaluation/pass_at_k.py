"""pass@k without bias (Chen et al. 2021, arXiv:2107.03374, equation 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DEFAULT_KS = (1, 10, 100)


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """Chance that of k samples drawn from num_samples, num_passed of which pass, at least one does.

    1 - C(n-c, k) / C(n, k), as a product that neither overflows nor loses digits.

    Raises:
        ValueError: fewer than k samples, from which the chance cannot be told.
    """
    if not 0 <= num_passed <= num_samples or not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} cannot be told from {num_passed} of {num_samples} samples")
    if num_samples - num_passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(num_samples - num_passed + 1, num_samples + 1))


def pass_at_k_by_task(counts: Sequence[tuple[int, int]], k: int) -> np.ndarray:
    """pass@k [tasks] of (samples, passed) for each task.

    Raises:
        ValueError: a task has fewer than k samples.
    """
    return np.array([pass_at_k(num_samples, num_passed, k) for num_samples, num_passed in counts])
