"""Train, validation and test as consecutive ranges of documents, from shares such as `969, 30, 1`."""

from __future__ import annotations

import itertools
import math
import re

from megatron.neox.errors import ConfigError

SPLITS = ("train", "valid", "test")


def parse_split(text: str) -> tuple[float, float, float]:
    """Normalised shares of train, validation and test; missing ones are 0, and they sum to 1.

    Raises:
        ConfigError: not one to three non-negative numbers, or all of them zero.
    """
    parts = [part for part in re.split(r"[,/\s]+", text.strip()) if part]
    try:
        shares = [float(part) for part in parts]
    except ValueError:
        shares = []
    if not 1 <= len(shares) <= len(SPLITS) or not all(0 <= s < math.inf for s in shares) or sum(shares) == 0:
        raise ConfigError(
            [f"split '{text}' is not one to three shares of train, validation and test, such as '969, 30, 1'"]
        )
    shares += [0.0] * (len(SPLITS) - len(shares))
    total = sum(shares)
    return shares[0] / total, shares[1] / total, shares[2] / total


def split_ranges(text: str, num_documents: int) -> dict[str, range]:
    """Documents of each split; the boundaries are megatron-core's, cumulated shares rounded to documents."""
    ends = [0.0, *itertools.accumulate(parse_split(text))]
    boundaries = [round(end * num_documents) for end in ends]
    return {name: range(a, b) for name, (a, b) in zip(SPLITS, itertools.pairwise(boundaries))}
