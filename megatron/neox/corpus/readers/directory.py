"""A folder of source files, read whole and recursively."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.tree import Tree
from megatron.neox.plugins import readers

_FILES_AT_ONCE = 1000  # about five megabytes of code


def directory_parts(
    path: Path,
    tally: Tally,
    *,
    seed: int | None = None,
    extensions: Sequence[str] = (),
    exclude: Collection[str] = (),
) -> Iterator[list[str]]:
    """The names of all files, in lists; the parameters are those of `read_directory`."""
    with Tree(path, tally, exclude=exclude, extensions=extensions) as tree:
        names = tree.paths(seed=seed)
    for start in range(0, len(names), _FILES_AT_ONCE):
        yield [os.fsdecode(name) for name in names[start : start + _FILES_AT_ONCE]]


@readers.register("directory")
def read_directory(
    path: Path,
    tally: Tally,
    *,
    seed: int | None = None,
    extensions: Sequence[str] = (),
    exclude: Collection[str] = (),
    max_bytes: int | None = None,
    part: Sequence[str] | None = None,
) -> Iterator[Document]:
    """Every regular file below a folder is a document; links, pipes and `.git` are left out.

    Args:
        seed: shuffles the order, the same for the same names everywhere; none keeps it sorted.
        extensions: endings to keep, such as `.py`; none keeps all files.
        exclude: names of files and folders to leave out.
        max_bytes: larger files are left out by their size, unread.
        part: names of the files to read; none reads all.

    Raises:
        InputError: there is no such folder.
    """
    with Tree(path, tally, exclude=exclude, extensions=extensions) as tree:
        for relative in tree.paths(seed=seed) if part is None else map(os.fsencode, part):
            data = tree.read(relative, max_bytes=max_bytes)
            if data is not None:
                yield Document(os.fsdecode(relative), data, is_file=True)
