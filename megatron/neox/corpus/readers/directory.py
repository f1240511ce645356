"""A folder of source files, read whole and recursively."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

from megatron.neox.corpus.document import MOST_BYTES, Document, Tally
from megatron.neox.corpus.listing import list_tree, path_in
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
    """All files as `list_tree` gives them, in lists; the parameters are those of `read_directory`."""
    with Tree(path, tally, exclude=exclude, extensions=extensions) as tree:
        listed = list_tree(tree, seed=seed)
    for start in range(0, len(listed), _FILES_AT_ONCE):
        yield [os.fsdecode(one) for one in listed[start : start + _FILES_AT_ONCE]]


def has_several_parts(path: Path) -> bool:
    """Whether the files of a folder are more than one list, whatever is left out of them."""
    with Tree(path, Tally()) as tree:
        return sum(1 for _ in islice(tree.walk(), _FILES_AT_ONCE + 1)) > _FILES_AT_ONCE


@readers.register("directory")
def read_directory(
    path: Path,
    tally: Tally,
    *,
    seed: int | None = None,
    extensions: Sequence[str] = (),
    exclude: Collection[str] = (),
    max_bytes: int = MOST_BYTES,
    part: Sequence[str] | None = None,
) -> Iterator[Document]:
    """Every regular file below a folder is a document; links, pipes and `.git` are left out.

    Args:
        seed: shuffles the order, the same for the same names everywhere; none keeps it sorted.
        extensions: endings to keep, such as `.py`; none keeps all files.
        exclude: names of files and folders to leave out.
        max_bytes: larger files are left out by their size, unread, counted as too_big.
        part: the files to read, as `directory_parts` gives them; none reads all.

    Raises:
        InputError: there is no such folder.
    """
    with Tree(path, tally, exclude=exclude, extensions=extensions) as tree:
        paths = tree.paths(seed=seed) if part is None else (path_in(os.fsencode(one)) for one in part)
        for relative in paths:
            data = tree.read(relative, max_bytes=max_bytes)
            if data is not None:
                yield Document(os.fsdecode(relative), data, is_file=True)
