"""One repository, one commit deep, into a folder of its own."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from megatron.neox.corpus.clone.git import Git, GitError, TimedOut, TooBig
from megatron.neox.corpus.clone.outcomes import CLONED, Outcome, may_pass, moved_to, outcome_of
from megatron.neox.corpus.repositories import Repository

_READ_BYTES = 1 << 20
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class CloneLimits:
    """How much a repository may cost.

    Attributes:
        max_bytes: of the pack while it comes, and of the files of the commit, before they are written.
        listing_bytes: of the names of the files, some 150 bytes each; a few small folders that hold each other
            can make billions of files.
        num_retries: of failures that may pass, within the time.
    """

    timeout_seconds: float = 1800.0
    max_bytes: int = 10 << 30
    listing_bytes: int = 256 << 20
    protocols: Sequence[str] = ("https",)
    num_retries: int = 2
    wait_seconds: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Clone:
    """What became of a repository.

    Attributes:
        repository: its `commit` is the cloned one.
        path: the folder, where there is one.
        num_bytes: of the commit's files; links and submodules are not followed.
    """

    repository: Repository
    outcome: Outcome
    path: Path | None = None
    message: str = ""
    moved_to: str | None = None
    num_bytes: int = 0
    num_files: int = 0


def clone_one(repository: Repository, folder: Path, limits: CloneLimits, stop: threading.Event) -> Clone:
    """Clone the default branch, or the very commit that `repository` names, into `folder`, which goes if it fails.

    Raises:
        ResourceError: the disk is full.
        DependencyError: there is no git.
        Stopped: `stop` was set.
    """
    said = (repository.disk_kilobytes or 0) << 10
    if said > limits.max_bytes:
        message = f"{said} bytes with its history, more than {limits.max_bytes}"
        return Clone(repository=repository, outcome="too_big", message=message)
    deadline = time.monotonic() + limits.timeout_seconds
    clone = Clone(repository=repository, outcome="failed")
    try:
        for attempt in range(limits.num_retries + 1):
            shutil.rmtree(folder, ignore_errors=True)
            clone = _attempt(repository, folder, limits, deadline, stop)
            wait = min(limits.wait_seconds * 2**attempt, _LONGEST_WAIT_SECONDS)
            if not (clone.outcome == "failed" and may_pass(clone.message)) or attempt == limits.num_retries:
                break
            if time.monotonic() + wait > deadline or stop.wait(wait):
                break
        return clone
    finally:
        if clone.outcome not in CLONED:
            shutil.rmtree(folder, ignore_errors=True)


def _attempt(
    repository: Repository, folder: Path, limits: CloneLimits, deadline: float, stop: threading.Event
) -> Clone:
    folder.mkdir(parents=True)
    git = Git(folder, protocols=limits.protocols, deadline=deadline, stop=stop)
    try:
        git.run("init", "--quiet", "--template=", "--initial-branch=main")
        told = git.run(
            "fetch", "--depth=1", "--no-tags", "--no-recurse-submodules", "--",
            repository.url, repository.commit or "HEAD",
            watch=lambda: _check_pack(folder, limits.max_bytes),
        )  # fmt: skip
        _check_pack(folder, limits.max_bytes)
        commit = _commit(git)
        num_bytes, num_files = _measure(git, limits)
        git.run("checkout", "--quiet", "--force", "--detach", commit)
    except TooBig as error:
        return Clone(repository=repository, outcome="too_big", message=str(error))
    except TimedOut:
        message = f"not done after {limits.timeout_seconds:g} s"
        return Clone(repository=repository, outcome="timeout", message=message)
    except GitError as error:
        return Clone(repository=repository, outcome=outcome_of(str(error)), message=_in_short(str(error)))
    to = moved_to(told)
    return Clone(
        repository=replace(repository, commit=commit), outcome="moved" if to else "ok", path=folder,
        moved_to=to, num_bytes=num_bytes, num_files=num_files,
    )  # fmt: skip


def _check_pack(folder: Path, max_bytes: int) -> None:
    num_bytes = 0
    for path in (folder / ".git" / "objects" / "pack").glob("*"):
        try:
            num_bytes += path.stat().st_size
        except FileNotFoundError:  # it has just got its final name
            continue
    if num_bytes > max_bytes:
        raise TooBig(f"its pack has more than {max_bytes} bytes")


def _commit(git: Git) -> str:
    with (git.folder / ".git" / "neox-commit").open("w+b") as output:
        git.run("rev-parse", "--verify", "FETCH_HEAD^{commit}", output=output)
        output.seek(0)
        commit = output.read().decode().strip()
    (git.folder / ".git" / "neox-commit").unlink()
    return commit


def _measure(git: Git, limits: CloneLimits) -> tuple[int, int]:
    """Bytes and number of the commit's files, before any is written: a small pack can hold very much.

    Raises:
        TooBig: they are too many.
    """
    listing = git.folder / ".git" / "neox-listing"

    def watch() -> None:
        if listing.stat().st_size > limits.listing_bytes:
            raise TooBig(f"the names of its files have more than {limits.listing_bytes} bytes")

    num_bytes = num_files = 0
    try:
        with listing.open("w+b") as output:
            git.run("ls-tree", "-r", "-l", "-z", "FETCH_HEAD", output=output, watch=watch)
            output.seek(0)
            for entry in _entries(output):
                size = entry.partition(b"\t")[0].rpartition(b" ")[2]  # "-" of a submodule
                if size.isdigit():
                    num_bytes, num_files = num_bytes + int(size), num_files + 1
    finally:
        listing.unlink()
    if num_bytes > limits.max_bytes:
        raise TooBig(f"its files have {num_bytes} bytes, more than {limits.max_bytes}")
    return num_bytes, num_files


def _entries(listing: IO[bytes]) -> Iterator[bytes]:
    """What stands between NULs."""
    rest = b""
    while chunk := listing.read(_READ_BYTES):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
    yield rest


def _in_short(told: str) -> str:
    """The lines that say why, without git's advice."""
    lines = [line for line in told.splitlines() if line.startswith(("fatal:", "error:", "remote:"))]
    return "; ".join(lines or told.splitlines())[:500]
