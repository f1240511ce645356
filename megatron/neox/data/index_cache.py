"""Index arrays on disk, named by a hash of everything they depend on, so that a stale one is never met."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

# Raised when the arrays' meaning changes, so that files of an earlier version are not read.
_VERSION = 1

# Datasets may lie on a disk that is not ours to write; a full disk is another matter.
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content: unlike size and time, it cannot miss a change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Hash of all that an order depends on, as JSON values."""
    key = json.dumps({"version": _VERSION, **settings}, sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def cached_arrays(
    folder: Path,
    stem: str,
    build: Callable[[], dict[str, np.ndarray]],
    *,
    builder: bool,
    barrier: Callable[[], None],
) -> dict[str, np.ndarray]:
    """The arrays that `build` returns, memory-mapped from `folder` where they stand already.

    The rank that is `builder` writes them while the others wait at `barrier`. A rank that finds no file
    afterwards (a disk of its own node, a folder that cannot be written) builds them in memory.

    Args:
        stem: how the files' names begin: `settings_digest` of all that the arrays depend on.
    """
    built: dict[str, np.ndarray] | None = None
    if builder and _load(folder, stem) is None:
        built = build()
        _store(folder, stem, built)
    barrier()
    arrays = _load(folder, stem)
    return arrays or built or build()


def _load(folder: Path, stem: str) -> dict[str, np.ndarray] | None:
    """The arrays whose names the list `STEM.json` holds, or None where one is absent or unreadable."""
    try:
        names = json.loads((folder / f"{stem}.json").read_text())
        return {name: np.load(folder / f"{stem}_{name}.npy", mmap_mode="r") for name in names}
    except (OSError, ValueError):
        return None


def _store(folder: Path, stem: str, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            _write(folder / f"{stem}_{name}.npy", lambda file, array=array: np.save(file, array))
        names = json.dumps(list(arrays)).encode()
        _write(folder / f"{stem}.json", lambda file: file.write(names))  # last: its presence means complete
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        log.warning(
            "the sample order is kept in memory, because %s cannot be written (%s); index_cache_path names "
            "another folder",
            folder,
            error.strerror,
        )


def _write(path: Path, write: Callable[[Any], Any]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
