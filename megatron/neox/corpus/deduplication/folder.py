"""Exact copies in a folder of files, such as PolyCoder's LANGUAGE/ORGANIZATION__PROJECT__PATH: found, and deleted.

Only files of equal size can be copies, so only those are read, unless an index is asked too. Of copies the first path
by its bytes stays. Names, sizes and digests are held in memory, no content.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.processes import submit, worker_pool
from megatron.neox.corpus.stages.shards import escape_path
from megatron.neox.corpus.tree import Tree
from megatron.neox.errors import InputError, OutputError
from megatron.neox.files import write_whole

log = logging.getLogger(__name__)

_TASK_BYTES = 16 << 20
_BLOCK_BYTES = 1 << 20
_FILE_BYTES = 20_000  # what opening a file costs, as bytes that could be hashed meanwhile
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Hashed = tuple[bytes, "bytes | None"]
"""A relative path and the file's SHA-256; None of what cannot be read."""


@dataclass(frozen=True)
class Copy:
    """A file that may go: its path below the folder, its bytes, their SHA-256, and of which file it is a copy.

    `kept` is None where an index holds it.
    """

    path: bytes
    size: int
    digest: bytes
    kept: bytes | None

    @property
    def reason(self) -> str:
        """As the stage over shards would say."""
        return "in_index" if self.kept is None else "duplicate"


@dataclass
class Found:
    """What a folder holds: how many files and bytes, and the copies among them by path."""

    num_files: int
    num_bytes: int
    copies: list[Copy]


def find_copies(root: Path, tally: Tally, *, against: Sequence[Path] = (), workers: int = 1) -> Found:
    """The files below `root` that are copies of others there, or stand in an index.

    Args:
        tally: counts what is left out: links, pipes, `.git`, what cannot be read.

    Raises:
        InputError: there is no such folder, or an index cannot be read.
    """
    sizes: dict[bytes, int] = {}
    with Tree(root, tally) as tree:
        paths = _sized(tree, sizes, tally)
        digests = dict(_hashed(root, sizes, paths if against else _of_equal_size(paths, sizes), workers))
    listed = _listed(digests, against)
    first: dict[bytes, bytes] = {}
    copies: list[Copy] = []
    for path in sorted(digests):
        digest = digests[path]
        if digest is None:
            tally.skip("unreadable")
        elif digest in listed:
            copies.append(Copy(path, sizes[path], digest, None))
        elif (kept := first.setdefault(digest, path)) != path:
            copies.append(Copy(path, sizes[path], digest, kept))
    return Found(len(sizes), sum(sizes.values()), copies)


def deduplicate_folder(
    root: Path,
    output: Path | None,
    *,
    against: Sequence[Path] = (),
    is_in_place: bool = False,
    overwrite: bool = False,
    workers: int = 1,
) -> str:
    """Tell the copies in a folder, a line `COPY<TAB>KEPT` each, and delete them where that is asked for.

    Args:
        output: gets the lines; without it they go to stdout.

    Returns:
        The counts, for people.

    Raises:
        OutputError: `output` exists, and `overwrite` is not asked for.
        InputError: as `find_copies`; or there is no file.
    """
    if output is not None and os.path.lexists(output) and not overwrite:
        raise OutputError(f"{output} exists already; give another --output, or --overwrite to replace it")
    tally = Tally()
    found = find_copies(root, tally, against=against, workers=workers)
    if not found.num_files:
        raise InputError(f"{root} holds no file")
    lines = "".join(
        f"{escape_path(copy.path)}\t{copy.reason if copy.kept is None else escape_path(copy.kept)}\n"
        for copy in found.copies
    )
    if output is None:
        sys.stdout.write(lines)
    else:
        write_whole(output, lines)
    gone = [copy for copy in found.copies if not is_in_place or _delete(root, copy)]
    counts = Counts()
    counts.kept[""].add(found.num_files - len(gone), found.num_bytes - sum(copy.size for copy in gone))
    for copy in gone:
        counts.leave_out(copy.reason, "", copy.size)
    for reason, number in tally.skipped.items():
        counts.left_out[reason][""].add(number, 0)
    told = "" if is_in_place or not gone else "nothing was deleted; --in-place does\n"
    return f"{root}:\n{counts.lines()}{told}"


def _delete(root: Path, copy: Copy) -> bool:
    """Delete a copy, unless it or what it is a copy of has changed; returns whether it did."""
    place = os.path.join(os.fsencode(root), copy.path)
    compared = [place] if copy.kept is None else [place, os.path.join(os.fsencode(root), copy.kept)]
    if any(_hash(path) != copy.digest for path in compared):
        log.warning("%r has changed meanwhile, and stays", os.fsdecode(place))
        return False
    os.unlink(place)
    return True


def _sized(tree: Tree, sizes: dict[bytes, int], tally: Tally) -> Iterator[bytes]:
    """The files of a tree; `sizes` gets those of all that were given."""
    for path, entry in tree.walk():
        try:
            sizes[path] = entry.stat(follow_symlinks=False).st_size
        except OSError:
            tally.skip("unreadable")
        else:
            yield path


def _of_equal_size(paths: Iterable[bytes], sizes: Mapping[bytes, int]) -> Iterator[bytes]:
    """The files that another one may equal, as soon as the second of a size is met."""
    alone: dict[int, bytes | None] = {}
    for path in paths:
        size = sizes[path]
        if size not in alone:
            alone[size] = path
            continue
        if (other := alone[size]) is not None:
            yield other
            alone[size] = None
        yield path


def _hashed(root: Path, sizes: Mapping[bytes, int], paths: Iterable[bytes], workers: int) -> Iterator[Hashed]:
    """Digests by path; while workers make those of some files, others are still being found."""
    tasks = _tasks(sizes, paths)
    first = list(islice(tasks, 2))
    if workers == 1 or len(first) < 2:
        for path in chain(*first, *tasks):
            yield path, _hash(os.path.join(os.fsencode(root), path))
        return
    with worker_pool(workers) as pool:
        futures: list[Future[list[Hashed]]] = [
            submit(pool, hash_files, root, task) for task in chain(first, tasks)
        ]
        for future in futures:
            yield from future.result()


def _tasks(sizes: Mapping[bytes, int], paths: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The paths in lists that take about as long each."""
    task: list[bytes] = []
    cost = 0
    for path in paths:
        task.append(path)
        cost += sizes[path] + _FILE_BYTES
        if cost >= _TASK_BYTES:
            yield task
            task, cost = [], 0
    if task:
        yield task


def hash_files(root: Path, paths: Sequence[bytes]) -> list[Hashed]:
    """SHA-256 of regular files below `root`."""
    base = os.fsencode(root)
    return [(path, _hash(os.path.join(base, path))) for path in paths]


def _hash(path: bytes) -> bytes | None:
    try:
        descriptor = os.open(path, _READ)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            if status.st_size < _BLOCK_BYTES:
                # One byte more than there should be: a file that has grown comes in several pieces.
                data = os.read(descriptor, status.st_size + 1)
                if len(data) == status.st_size:
                    return sha256(data).digest()
                os.lseek(descriptor, 0, os.SEEK_SET)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            digest = sha256()
            while block := os.read(descriptor, _BLOCK_BYTES):
                digest.update(block)
            return digest.digest()
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _listed(digests: Mapping[bytes, bytes | None], against: Sequence[Path]) -> frozenset[bytes]:
    """Which of the digests stand in an index."""
    if not against:
        return frozenset()
    from megatron.neox.corpus.index.index import find_seen

    wanted = {digest.hex() for digest in digests.values() if digest is not None}
    return frozenset(bytes.fromhex(seen) for index in against for seen in find_seen(index, wanted))
