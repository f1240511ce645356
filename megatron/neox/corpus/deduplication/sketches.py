"""What is kept of a file to compare it with others: the least hashes of its shingles, and Jaccard's index of two.

Files of up to 4,096 different shingles are kept whole, so that their index is exact. Of a longer one the 4,096 least
hashes are a random sample; of two, what lies below the lower of their ends is a sample of both together (Bar-Yossef
et al. 2002), of at least 4,096, which gives the index with a standard error of at most 0.008.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from megatron.neox.corpus.deduplication.shingles import Shingles

SKETCH_SIZE = 4096

_WHOLE = 0xFFFFFFFF
_VALUES = 1 << 17  # of pairs that are compared at once: what they take fits a processor's cache

Sketch = tuple[np.ndarray, int]
"""Least hashes, sorted, uint32; and up to where all that there are are among them."""


@dataclass(frozen=True)
class Sketches:
    """Of texts numbered from 0.

    Attributes:
        least: [n] uint32, the least hashes, those of a text together and sorted.
        bounds: [texts + 1], where those of each text begin.
        ends: [texts] uint32, up to where all that there are are among them.
    """

    least: np.ndarray
    bounds: np.ndarray
    ends: np.ndarray

    def __getitem__(self, text: int) -> Sketch:
        """That of one text."""
        return self.least[self.bounds[text] : self.bounds[text + 1]], int(self.ends[text])

    def __len__(self) -> int:
        """How many texts."""
        return len(self.ends)


def sketches(shingles: Shingles) -> Sketches:
    """A sketch of each text."""
    # Bins are chosen by the upper half of a hash, and the lower one is free.
    least = shingles.hashes.astype(np.uint32)
    for start, end in pairwise(shingles.bounds.tolist()):
        least[start:end].sort()
    is_new = np.ones(len(least), bool)
    is_new[1:] = least[1:] != least[:-1]
    is_new[shingles.bounds[:-1][np.diff(shingles.bounds) > 0]] = True
    kept = np.flatnonzero(is_new)
    least, bounds = least[kept], np.searchsorted(kept, shingles.bounds)
    sizes = np.diff(bounds)
    ends = np.full(len(sizes), _WHOLE, np.uint32)
    if (is_long := sizes > SKETCH_SIZE).any():
        ends[is_long] = least[bounds[:-1][is_long] + SKETCH_SIZE - 1]
        least = least[np.arange(len(least)) - np.repeat(bounds[:-1], sizes) < SKETCH_SIZE]
        bounds = np.concatenate([[0], np.cumsum(np.minimum(sizes, SKETCH_SIZE))])
    return Sketches(least, bounds, ends)


def jaccard(made: Sequence[Sketch], pairs: np.ndarray) -> np.ndarray:
    """Jaccard's index of pairs of sets, [pairs]; 0 where both are empty.

    Args:
        pairs: [2, pairs], places among the sketches.
    """
    sizes = np.array([len(values) for values, _ in made], np.int64)
    num_values = np.cumsum(sizes[pairs].sum(axis=0))
    bounds = np.searchsorted(num_values, np.arange(_VALUES, num_values[-1:].sum(), _VALUES), "right")
    parts = [_jaccard(made, part) for part in np.split(pairs, bounds, axis=1) if part.size]
    return np.concatenate([np.empty(0), *parts])


def _jaccard(made: Sequence[Sketch], pairs: np.ndarray) -> np.ndarray:
    num_pairs = pairs.shape[1]
    sides = [made[place] for place in pairs.T.ravel().tolist()]
    values = np.concatenate([values for values, _ in sides])
    lengths = np.array([len(values) for values, _ in sides]).reshape(-1, 2).sum(axis=1)
    ends = np.array([end for _, end in sides], np.uint32).reshape(-1, 2).min(axis=1)
    pair = np.repeat(np.arange(num_pairs), lengths)
    if (ends != _WHOLE).any():
        inside = values <= ends[pair]
        values, pair = values[inside], pair[inside]
    keys = (pair.astype(np.uint64) << np.uint64(32)) | values
    keys.sort()
    in_both = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
    common = np.bincount(in_both.astype(np.int64), minlength=num_pairs)
    return common / np.maximum(np.bincount(pair, minlength=num_pairs) - common, 1)


def may_reach(sizes: np.ndarray, ends: np.ndarray, threshold: float) -> np.ndarray:
    """Which pairs their sizes alone allow that index, [pairs].

    Args:
        sizes, ends: of both sketches of each pair, [2, pairs].
    """
    are_whole = (ends == _WHOLE).all(axis=0)
    return ~are_whole | (sizes.min(axis=0) >= threshold * sizes.max(axis=0))
