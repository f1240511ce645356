"""Folders that appear under their name when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron.neox.errors import OutputError
from megatron.neox.layouts.manifest import sync_folder


def refuse_existing(path: Path) -> None:
    """Refuse an output that is there already.

    Raises:
        OutputError: it is, and is no empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(f"{path} exists; give another --output, or remove it")


@contextmanager
def appearing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to write to; it takes its name where the block ends well, else it goes.

    Raises:
        OutputError: `path` is there already, or cannot be made.
    """
    path = Path(os.path.abspath(path))
    refuse_existing(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror}; give another --output") from error
    try:
        yield partial
        for file in (found for found in partial.rglob("*") if found.is_file()):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        os.rename(partial, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
