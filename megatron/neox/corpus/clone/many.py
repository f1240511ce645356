"""Many repositories, several at a time, each recorded once it is done with."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from megatron.neox.corpus.clone.one import Clone, CloneLimits, clone_one
from megatron.neox.corpus.clone.outcomes import CLONED, OUTCOMES, PASSING, Outcome
from megatron.neox.corpus.line_log import LineLog
from megatron.neox.corpus.repositories import Repository
from megatron.neox.downloads.lock import alone_in
from megatron.neox.errors import InputError
from megatron.neox.files import write_whole

log = logging.getLogger(__name__)

RECORD = "clones.jsonl"
_PARTIAL = ".partial"


@dataclass(frozen=True, kw_only=True)
class CloneSettings:
    """Where to, and how.

    Attributes:
        output: gets LANGUAGE/ORGANIZATION/PROJECT and clones.jsonl.
        again: outcomes of an earlier run that are tried once more.
        is_kept: leave the clones on the disk once they were used.
    """

    output: Path
    workers: int = 16
    limits: CloneLimits = field(default_factory=CloneLimits)
    again: Collection[Outcome] = PASSING
    is_kept: bool = True


def clone_each(
    repositories: Iterable[Repository],
    settings: CloneSettings,
    use: Callable[[Clone], object] | None = None,
) -> Iterator[Clone]:
    """Clone all that an earlier run did not, and tell of each as it is done.

    A clone takes its name when it is whole; `use` is then called with it in the caller's thread, it is recorded, and
    taken away again unless it is kept. No more than twice as many as there are workers lie on the disk unused. What a
    killed run left half done is cleared away. A repository that names its commit gets this very one.

    Raises:
        OutputError: another run holds the output.
        InputError: an address has a protocol that is not allowed, or the record is damaged.
        ResourceError: the disk is full.
        DependencyError: there is no git.
    """
    todo = list({(entry.language, entry.name): entry for entry in repositories}.values())
    _check_protocols(todo, settings.limits.protocols)
    output = settings.output
    with ExitStack() as stack:
        stack.enter_context(alone_in(output))
        record = stack.enter_context(_Record(output / RECORD))
        partial = output / _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        # A git whose parent was killed may still be writing; it must not meet the folders of this run.
        partial.mkdir(exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=partial))
        waiting = (task for entry in todo if (task := _task(entry, record, settings)) is not None)
        for clone in _in_parallel(waiting, beside, settings):
            yield _finish(clone, settings, record, use)
        record.compact([(entry.language, entry.name) for entry in todo])


def outcomes(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What a clones.jsonl says last of each (language, name).

    Raises:
        InputError: a line is none of a record.
    """
    with _Record(path) as record:
        return dict(record.rows)


def _check_protocols(repositories: Iterable[Repository], allowed: Collection[str]) -> None:
    for entry in repositories:
        protocol = entry.url.partition("://")[0]
        if protocol not in allowed:
            raise InputError(
                f"{entry.url}: protocol {protocol} is not allowed; --allow-protocol {protocol} would allow it"
            )


def _task(entry: Repository, record: _Record, settings: CloneSettings) -> Repository | None:
    """What is to be cloned for an entry of the list: nothing, itself, or the commit that was cloned and is lost."""
    row = record.rows.get((entry.language, entry.name))
    if row is None or row["outcome"] in settings.again:
        return entry
    if row["outcome"] in CLONED:
        if entry.commit not in (None, row["commit"]):
            return entry
        if settings.is_kept and not _place(entry, settings).exists():
            return replace(entry, commit=row["commit"])
    return None


def _place(entry: Repository, settings: CloneSettings) -> Path:
    return settings.output / entry.language / entry.name


def _in_parallel(waiting: Iterator[Repository], beside: Path, settings: CloneSettings) -> Iterator[Clone]:
    """Clones in the order in which they get done."""
    stop, running = threading.Event(), set[Future[Clone]]()
    numbers = itertools.count()
    with ThreadPoolExecutor(settings.workers) as pool:
        try:
            while True:
                for entry in itertools.islice(waiting, 2 * settings.workers - len(running)):
                    folder = beside / str(next(numbers))
                    running.add(pool.submit(clone_one, entry, folder, settings.limits, stop))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _finish(
    clone: Clone, settings: CloneSettings, record: _Record, use: Callable[[Clone], object] | None
) -> Clone:
    if clone.path is not None:
        place = _place(clone.repository, settings)
        if place.exists():  # of a run that was killed before it recorded it
            shutil.rmtree(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        clone.path.rename(place)
        clone = replace(clone, path=place)
        if use:
            use(clone)
    record.add(clone)
    if clone.path is not None and not settings.is_kept:
        shutil.rmtree(clone.path)
        with suppress(OSError):  # others are in it
            clone.path.parent.rmdir()
    return clone


class _Record(LineLog):
    """clones.jsonl: a line is on the disk before the next repository is told of."""

    def __init__(self, path: Path) -> None:
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._path = path
        super().__init__(path, self._take, f"not a line of {RECORD}; move the file away to clone all again")

    def _take(self, row: Any) -> None:
        if row["outcome"] not in OUTCOMES:
            raise ValueError(row["outcome"])
        self.rows[row["language"], row["name"]] = row

    def add(self, clone: Clone) -> None:
        """Write down what became of a repository."""
        row = {
            **clone.repository.row(),
            "outcome": clone.outcome,
            "message": clone.message,
            "moved_to": clone.moved_to,
            "num_bytes": clone.num_bytes,
            "num_files": clone.num_files,
            "cloned_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self.append(row)
        self.rows[clone.repository.language, clone.repository.name] = row

    def compact(self, order: Iterable[tuple[str, str]]) -> None:
        """One line a repository, in the order of the list; those of other lists before them."""
        listed = dict.fromkeys(order)
        rows = [row for key, row in self.rows.items() if key not in listed]
        rows += [self.rows[key] for key in listed if key in self.rows]
        write_whole(self._path, "".join(json.dumps(row) + "\n" for row in rows))
