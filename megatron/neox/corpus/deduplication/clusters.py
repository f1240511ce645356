"""From files that meet to pairs, and from pairs to clusters."""

from __future__ import annotations

import numpy as np

from megatron.neox.corpus.deduplication.shingles import mix

# Of the files that meet under one key each is paired with so many others; other keys link what this leaves apart.
_NEIGHBOURS = 64


def meeting(
    key: np.ndarray, content: np.ndarray, file: np.ndarray, is_first: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of files that meet under a key, [2, pairs]; and links between those with the same content, [2, links].

    Args:
        key, content, file: of every key of every file, uint64; files with the same content have the same keys.
        is_first: whether it is the file's first key; under its others a file would be linked in the same way.
    """
    # In another order under every key, so that each file has other neighbours there.
    order = np.lexsort((file, mix(content ^ key), key))
    key, content, file, is_first = key[order], content[order], file[order], is_first[order]
    is_new = np.ones(len(key), bool)
    is_new[1:] = (key[1:] != key[:-1]) | (content[1:] != content[:-1])
    linked = ~is_new & is_first
    links = np.stack([file[is_new][np.cumsum(is_new)[linked] - 1], file[linked]])
    return neighbours(key[is_new], file[is_new]), links


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
    """Different pairs, sorted, [2, pairs]."""
    # As one number each: to sort by two, or to let np.unique compare them as bytes, takes many times longer.
    numbers = different(pairs.ravel())
    first, second = np.searchsorted(numbers, pairs)
    codes = different(first * len(numbers) + second)
    return numbers[np.stack(np.divmod(codes, max(1, len(numbers))))]


def different(numbers: np.ndarray) -> np.ndarray:
    """The different ones among numbers, sorted; np.unique puts them into a table first, and takes many times longer."""
    numbers = np.sort(numbers)
    is_new = np.ones(len(numbers), bool)
    is_new[1:] = numbers[1:] != numbers[:-1]
    return numbers[is_new]


def are_among(numbers: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of the numbers are among others that are different and sorted."""
    return np.searchsorted(others, numbers, "right") > np.searchsorted(others, numbers)


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
