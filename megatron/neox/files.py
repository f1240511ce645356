"""Files that appear under their name when they are complete, so that nobody ever meets half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write the file to; it takes its name where the block ends well, else it goes.

    The content lies on the disk before it takes the name, so that a power cut leaves the old file or the new.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8, its line ends as they stand in `text`."""
    with appearing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")
