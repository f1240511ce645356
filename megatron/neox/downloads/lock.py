"""One download at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from megatron.neox.errors import OutputError

LOCK_NAME = ".download.lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder`, made where it is absent, and again taken away where nothing came into it.

    The kernel lets go of it when the process dies.

    Raises:
        OutputError: another download holds it, or it cannot be written.
    """
    path = folder / LOCK_NAME
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")  # for writing, which a lock over NFS needs
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no other name helps
            raise
        raise OutputError(f"cannot write {folder}: {error.strerror}; give another --output") from error
    with file:
        if not _is_taken(file.fileno(), path):
            raise OutputError(
                f"another download into {folder} is running; wait for it, stop it, or give another --output"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if is_new:
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _is_taken(descriptor: int, path: Path) -> bool:
    """Lock the file, unless another has, or had and took its name away since it was opened here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
