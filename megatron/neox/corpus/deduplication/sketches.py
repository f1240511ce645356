"""What is kept of a file to compare it with others: the least hashes of its shingles, and Jaccard's index of two.

Files of up to 4,096 different shingles are kept whole, so that their index is exact. Of a longer one the 4,096 least
hashes are a random sample; of two, what lies below the lower of their ends is a sample of both together (Bar-Yossef
et al. 2002), of at least 4,096, which gives the index with a standard error of at most 0.008.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from megatron.neox.corpus.deduplication.shingles import Shingles

SKETCH_SIZE = 4096

_WHOLE = 0xFFFFFFFF

Sketch = tuple[np.ndarray, int]
"""Least hashes, sorted, uint32; and up to where all that there are are among them."""


def sketches(shingles: Shingles) -> Iterator[Sketch]:
    """A sketch of each text."""
    # Bins are chosen by the upper half of a hash, and the lower one is free.
    hashes = shingles.hashes.astype(np.uint32)
    for start, end in zip(shingles.bounds[:-1], shingles.bounds[1:]):
        values = np.sort(
            hashes[start:end]
        )  # np.unique puts them into a table first, and takes many times longer
        values = values[np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]]
        if len(values) > SKETCH_SIZE:
            values = values[:SKETCH_SIZE]
            yield values, int(values[-1])
        else:
            yield values, _WHOLE


def jaccard(first: Sketch, second: Sketch) -> float:
    """Jaccard's index of two sets; 0 where both are empty."""
    end = min(first[1], second[1])
    one, other = (
        values if end == _WHOLE else values[: np.searchsorted(values, end, "right")]
        for values in (first[0], second[0])
    )
    both = np.concatenate([one, other])
    both.sort()
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common) if len(both) else 0.0


def may_reach(sizes: np.ndarray, ends: np.ndarray, threshold: float) -> np.ndarray:
    """Which pairs their sizes alone allow that index, [pairs].

    Args:
        sizes, ends: of both sketches of each pair, [2, pairs].
    """
    are_whole = (ends == _WHOLE).all(axis=0)
    return ~are_whole | (sizes.min(axis=0) >= threshold * sizes.max(axis=0))
