"""Signatures of sets by one permutation, and the keys under which likely equals meet.

Each hash falls into one of the bins and the least one of a bin stays (Li, Owen, Zhang 2012, "One permutation
hashing"), so a shingle costs one hash and not one for each permutation. An empty bin takes the value of the next one
that is not, changed by the distance (Shrivastava, Li 2014, "Densifying one permutation hashing via rotation").
Two signatures agree in a bin with the probability of Jaccard's index J, so that of `bands` keys over `rows` bins each
at least one agrees with 1 - (1 - J^rows)^bands (Leskovec et al., "Mining of massive datasets", 3.4).
"""

from __future__ import annotations

import numpy as np

from megatron.neox.corpus.deduplication.shingles import Shingles, mix

_EMPTY = np.uint32(0xFFFFFFFF)
_DISTANCE = np.uint32(0x9E3779B1)
_KEY = np.uint64(0x9E3779B97F4A7C15)


def signatures(shingles: Shingles, num_bins: int) -> np.ndarray:
    """Least hashes in each bin, [texts, num_bins] uint32; those of a text without shingles mean nothing."""
    hashes = shingles.hashes
    bins = (((hashes >> np.uint64(32)) * np.uint64(num_bins)) >> np.uint64(32)).astype(np.int64)
    bins += np.repeat(np.arange(len(shingles.bounds) - 1) * num_bins, np.diff(shingles.bounds))
    least = np.full((len(shingles.bounds) - 1) * num_bins, _EMPTY)
    np.minimum.at(least, bins, hashes.astype(np.uint32))
    return _densified(least.reshape(-1, num_bins))


def _densified(least: np.ndarray) -> np.ndarray:
    num_bins = least.shape[1]
    bins = np.arange(num_bins, dtype=np.int32)
    places = np.where(least == _EMPTY, np.int32(2 * num_bins), bins)
    next_full = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
    next_full = np.minimum(
        next_full, next_full[:, :1] + num_bins
    )  # behind the last one the first comes again
    distance = (next_full - bins).astype(np.uint32)
    return np.take_along_axis(least, next_full % num_bins, axis=1) + distance * _DISTANCE


def band_keys(signature: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Keys of texts, [texts, bands] uint64; those of different bands differ."""
    values = signature[:, : bands * rows].reshape(-1, bands, rows)
    keys = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), values.shape[:2]).copy()
    for row in range(rows):
        keys *= _KEY
        keys += values[:, :, row]
        mix(keys)
    return keys
