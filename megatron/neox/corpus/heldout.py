"""Which files are held out: whole top-level packages, so that sibling files never stand on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from megatron.neox.errors import InputError


def group_of(path: bytes, *, depth: int = 1) -> bytes:
    """Package of a path: its first `depth` parts, the ending left out, so that `a.py` goes with `a/b.py`."""
    *folders, name = path.split(b"/")[:depth]
    stem = name.partition(b".")[0] or name  # a hidden name begins with its dot
    return b"/".join([*folders, stem])


def heldout_groups(bytes_of_group: Mapping[bytes, int], *, share: float, seed: int) -> frozenset[bytes]:
    """Groups that hold about `share` of all bytes, chosen by the hashes of their names under a seed.

    Groups are taken in the order of their hashes until the share is reached; one larger than the whole
    share is passed over, so that a giant does not take the corpus with it. At least one is taken, and at
    most half of them.

    Raises:
        InputError: there are fewer than two groups.
    """
    if share <= 0:
        return frozenset()
    if len(bytes_of_group) < 2:
        raise InputError(
            f"{len(bytes_of_group)} top-level package(s) cannot be divided into train and heldout; "
            "--group-depth 2 divides by the folders below, --heldout-share 0 holds nothing out"
        )
    order = sorted(bytes_of_group, key=lambda name: (_hash(name, seed), name))
    wanted = share * sum(bytes_of_group.values())
    chosen: set[bytes] = set()
    held = 0
    for name in order:
        if held >= wanted or len(chosen) == len(order) // 2:
            break
        if bytes_of_group[name] <= wanted:
            chosen.add(name)
            held += bytes_of_group[name]
    return frozenset(chosen or {min(order, key=lambda name: bytes_of_group[name])})


def _hash(name: bytes, seed: int) -> bytes:
    return sha256(str(seed).encode() + b"\0" + name).digest()
