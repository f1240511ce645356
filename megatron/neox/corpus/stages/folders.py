"""Folders that appear under their name whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron.neox.errors import OutputError


@contextmanager
def appearing_whole(output: Path, *, overwrite: bool, marker: str) -> Iterator[Path]:
    """An empty folder beside `output` that takes its name when the block ends well, and goes when it does not.

    It is locked against a second run; what a killed run left in it is cleared away.

    Args:
        overwrite: replace an `output` that holds a file named `marker`, and nothing else: a slip of the hand
            must not cost a home folder.

    Raises:
        OutputError: `output` holds something already, cannot be made, or another run is making it.
    """
    exists = os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir()))
    if exists and not overwrite:
        raise OutputError(f"{output} exists already; give another --output, or --overwrite to replace it")
    if exists and not (output / marker).is_file():
        raise OutputError(
            f"{output} has no {marker}, so it is not one of ours and is left alone; give another --output"
        )
    staging = output.with_name(f".{output.name}.partial")
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise OutputError(f"cannot write {output}: {error.strerror}; give another --output") from error
    with lock_folder(staging):
        try:
            _clear(staging)
            yield staging
            if exists:
                _swap(staging, output)
            else:
                staging.rename(output)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def lock_folder(folder: Path, option: str = "--output") -> Iterator[None]:
    """Hold a folder against a second run; the kernel lets go of it when the process dies.

    Args:
        option: names another folder.

    Raises:
        OutputError: another run holds it.
    """
    descriptor = -1
    try:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The run that held the lock may have given this very folder its final name meanwhile.
            if not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                raise FileNotFoundError(folder)
        except (BlockingIOError, FileNotFoundError) as error:
            raise OutputError(
                f"another run is writing {folder}; wait for it, or give another {option}"
            ) from error
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _clear(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def _swap(staging: Path, output: Path) -> None:
    """Put the new folder in the old one's place; `staging` then names the old one."""
    aside = staging.with_name(f".{output.name}.replaced")
    output.rename(aside)
    staging.rename(output)
    aside.rename(staging)
