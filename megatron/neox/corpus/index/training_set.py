"""Whether files were in a training set, by the index of it.

A file is looked up by its bytes as they are, and with the line ends of Unix and of Windows. Files that were changed in
any other way pass for unseen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.index.index import file_hashes, find_seen
from megatron.neox.corpus.tree import Tree
from megatron.neox.errors import InputError

Verdict = Literal["seen", "seen_line_ends", "unseen"]


@dataclass(frozen=True)
class Looked:
    """A file that was looked up: `path` as given, or below the folder that was."""

    path: bytes
    sha256: str
    verdict: Verdict


def look_up(index: Path, paths: Sequence[Path], tally: Tally) -> list[Looked]:
    """Look files, and those below folders, up in one pass over an index.

    A file takes 300 bytes of memory and the length of its path, the index none that would depend on its size.

    Args:
        tally: counts what is left out of folders: links, pipes, `.git`, what cannot be read.

    Raises:
        InputError: a path is absent or cannot be read, or the index is none.
    """
    files = [(path, file_hashes(data)) for path, data in _files(paths, tally)]
    seen = find_seen(index, {digest for _, hashes in files for digest in hashes})
    return [Looked(path, hashes[0], _verdict(hashes, seen)) for path, hashes in files]


def _verdict(hashes: tuple[str, str, str], seen: set[str]) -> Verdict:
    if hashes[0] in seen:
        return "seen"
    return "unseen" if seen.isdisjoint(hashes) else "seen_line_ends"


def _files(paths: Sequence[Path], tally: Tally) -> Iterator[tuple[bytes, bytes]]:
    for path in paths:
        if path.is_dir():
            with Tree(path, tally) as tree:
                for below in tree.paths():
                    if (data := tree.read(below)) is not None:
                        yield os.path.join(os.fsencode(path), below), data
        elif path.is_file():
            try:
                yield os.fsencode(path), path.read_bytes()
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}") from error
        else:
            raise InputError(f"{path} is neither a file nor a folder")
