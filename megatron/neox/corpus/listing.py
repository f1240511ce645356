"""What files were when a run looked at them, so that one that goes on notices another.

Size and time of change decide, as they do for make and rsync: a content is not read again to be compared.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from megatron.neox.corpus.tree import Tree
from megatron.neox.errors import OutputError


def state_of(path: Path) -> str:
    """Size and time of change of a file; empty where there is none."""
    try:
        return _state(path.stat())
    except OSError:
        return ""


def list_tree(tree: Tree, *, seed: int | None = None) -> list[bytes]:
    """All files in the order of `Tree.paths`: of each its path, a NUL, and its state."""
    # One object a file, for of a corpus there are tens of millions; NUL sorts before all that a path may hold.
    found = sorted(path + b"\0" + _entry_state(entry) for path, entry in tree.walk())
    if seed is not None:
        random.Random(seed).shuffle(found)
    return found


def path_in(listed: bytes) -> bytes:
    """The path of what `list_tree` gave."""
    return listed.partition(b"\0")[0]


def digest_of(listing: Sequence[bytes]) -> str:
    """A hash of what `list_tree` gave."""
    return sha256(b"\0\0".join(listing)).hexdigest()


def _entry_state(entry: os.DirEntry[str]) -> bytes:
    try:
        return _state(entry.stat(follow_symlinks=False)).encode()
    except OSError:  # gone since: reading it will tell
        return b""


def _state(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def changed(path: str | Path) -> OutputError:
    """What to raise where an input is not what it was when the run began."""
    return OutputError(
        f"{path} changed since the run began that is to go on, so its output would mix old and new; "
        "--overwrite begins anew"
    )
