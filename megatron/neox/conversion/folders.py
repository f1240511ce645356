"""Folders that appear under their name when they are complete."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron.neox.errors import OutputError
from megatron.neox.layouts.manifest import sync_folder


def refuse_existing(path: Path, *, is_file: bool = False) -> None:
    """Refuse an output that is there already.

    Args:
        is_file: whether the output is to be a file, which cannot take an empty folder's place.

    Raises:
        OutputError: it is, and is no empty folder; or its name is none that this disk can hold.
    """
    with saying_where(path):
        try:
            is_link = stat.S_ISLNK(path.lstat().st_mode)  # one that leads nowhere is in the way, too
        except FileNotFoundError:
            return
        is_free = path.is_dir() and not (is_link or is_file or any(path.iterdir()))
    if not is_free:
        raise OutputError(f"{path} exists; give another --output, or remove it")


@contextmanager
def saying_where(path: Path) -> Iterator[None]:
    """What the system says while an output is written, as a message.

    Raises:
        OutputError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no other name helps
            raise
        raise OutputError(f"cannot write to {path}: {error.strerror}; give another --output") from error


@contextmanager
def appearing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to write to; it takes its name where the block ends well, else it goes.

    Raises:
        OutputError: `path` is there already, or cannot be made.
    """
    path = Path(os.path.abspath(path))
    refuse_existing(path)
    partial = path.with_name(f".{path.name}.partial")
    with saying_where(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        yield partial
        for file in (found for found in partial.rglob("*") if found.is_file()):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        with saying_where(path):
            os.rename(partial, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
