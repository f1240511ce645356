"""Folders that appear under their name whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    refuse_nameless(output)
    put_back(output)
    exists = holds_something(output)
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
            clear(staging)
            yield staging
            put_in_place(staging, output)
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


def clear(folder: Path) -> None:
    """Remove what a folder holds."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def refuse_nameless(output: Path, option: str = "--output") -> None:
    """Refuse `.` and the like: what takes a name when it is whole needs one.

    Raises:
        OutputError: as it says.
    """
    if output.name in ("", ".."):
        raise OutputError(f"{output} is no name for a new folder; give another {option}")


def holds_something(output: Path) -> bool:
    """Whether something has the name, be it a link that leads nowhere, other than an empty folder."""
    return os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir()))


def put_in_place(new: Path, output: Path) -> None:
    """Give a whole folder its name; one that has the name goes.

    Two renames are two instants: of a run that is killed between them, `put_back` finds the old folder again.
    """
    if not holds_something(output):
        new.rename(output)
        return
    aside = _aside(output)
    with lock_folder(output):  # which the folder keeps under its other name
        output.rename(aside)
        new.rename(output)
        remove_whole(aside)


def put_back(output: Path) -> None:
    """Give a folder its name again that a killed run set aside for a new one, which did not come; else clear it away.

    Raises:
        OutputError: another run is giving the new one its name.
    """
    aside = _aside(output)
    clear_removed(aside)
    with suppress(FileNotFoundError):
        aside.stat()
        with lock_folder(aside):
            if os.path.lexists(output):
                remove_whole(aside)
            else:
                aside.rename(output)


def _aside(output: Path) -> Path:
    return output.with_name(f".{output.name}.replaced")


def remove_whole(folder: Path) -> None:
    """Remove a folder, under another name first, so that what has its name is whole until it is gone.

    What a kill leaves of it `clear_removed` clears away.
    """
    if folder.is_symlink():
        folder.unlink()
    else:
        folder.rename(_doomed(folder))
        clear_removed(folder)


def clear_removed(folder: Path) -> None:
    """Clear away what is left of a folder that was removed; another run may be at it, too."""
    shutil.rmtree(_doomed(folder), ignore_errors=True)


def _doomed(folder: Path) -> Path:
    return folder.with_name(f".{folder.name.removeprefix('.')}.removed")
