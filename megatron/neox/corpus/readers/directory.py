"""A folder of source files, read whole and recursively."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.tree import Tree
from megatron.neox.plugins import readers


@readers.register("directory")
def read_directory(
    path: Path,
    tally: Tally,
    *,
    seed: int | None = None,
    extensions: Sequence[str] = (),
    exclude: Collection[str] = (),
    max_bytes: int | None = None,
) -> Iterator[Document]:
    """Every regular file below a folder is a document; links, pipes and `.git` are left out.

    Args:
        seed: shuffles the order, the same for the same names everywhere; none keeps it sorted.
        extensions: endings to keep, such as `.py`; none keeps all files.
        exclude: names of files and folders to leave out.
        max_bytes: larger files are left out by their size, unread.

    Raises:
        InputError: there is no such folder.
    """
    with Tree(path, tally, exclude=exclude, extensions=extensions) as tree:
        for relative in tree.paths(seed=seed):
            data = tree.read(relative, max_bytes=max_bytes)
            if data is not None:
                yield Document(os.fsdecode(relative), data, is_file=True)
