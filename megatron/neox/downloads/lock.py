"""One download at a time in a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron.neox.errors import OutputError

LOCK_NAME = ".download.lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder`, made where it is absent; the kernel lets go of it when the process dies.

    Raises:
        OutputError: another download holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Opened for writing, which a lock over NFS needs; the file stays, because removing it would race.
        file = (folder / LOCK_NAME).open("ab")
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; give another --output") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another download into {folder} is running; wait for it, stop it, or give another --output"
            ) from None
        yield
