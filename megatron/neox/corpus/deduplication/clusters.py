"""From files that meet to pairs, and from pairs to clusters."""

from __future__ import annotations

import numpy as np

# Of the files that meet under one key each is paired with so many others; other keys link what this leaves apart.
_NEIGHBOURS = 64


def neighbours(key: np.ndarray, file: np.ndarray) -> np.ndarray:
    """Different pairs of files with the same key, the lesser first, [2, pairs]; keys are sorted."""
    found = [np.empty((2, 0), np.uint64)]
    for distance in range(1, _NEIGHBOURS + 1):
        meet = key[distance:] == key[:-distance]
        if not meet.any():
            break
        found.append(np.stack([file[:-distance][meet], file[distance:][meet]]))
    return distinct(np.sort(np.concatenate(found, axis=1), axis=0))


def distinct(pairs: np.ndarray) -> np.ndarray:
    """Different pairs, sorted, [2, pairs]; `np.unique` over an axis compares them as bytes, ten times slower."""
    pairs = pairs[:, np.lexsort((pairs[1], pairs[0]))]
    is_new = np.ones(pairs.shape[1], bool)
    is_new[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
    return pairs[:, is_new]


def components(edges: np.ndarray, num_nodes: int) -> np.ndarray:
    """The least node that each is linked to, over any number of edges, [nodes].

    Args:
        edges: [2, edges], places of nodes.
    """
    least = np.arange(num_nodes)
    while True:
        before = least.copy()
        low = np.minimum(least[edges[0]], least[edges[1]])
        # The roots are hooked, not the nodes alone, so that long chains take few rounds.
        for end in edges:
            np.minimum.at(least, before[end], low)
            np.minimum.at(least, end, low)
        while not np.array_equal(least, jumped := least[least]):
            least = jumped
        if np.array_equal(least, before):
            return least
