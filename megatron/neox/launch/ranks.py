"""What a rank and its launcher tell each other: a folder with a file for each rank's start and each rank's end.

DeepSpeed's launcher reports one exit code for all ranks and repeats nothing of what they said. With these files a
user's mistake that all ranks meet is printed once, and a rank that was killed is noticed at once.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron.neox.engine.distributed import LAUNCH_FOLDER
from megatron.neox.files import write_whole


@dataclass(frozen=True)
class RankStart:
    """A rank that runs."""

    rank: int
    pid: int
    parent: int  # process id of what started it


@dataclass(frozen=True)
class RankEnd:
    """A rank that came to its end by itself."""

    rank: int
    code: int
    message: str  # a user's mistake, in words; "" for none


def launch_folder() -> Path | None:
    """The folder of the launch that this process belongs to, where it is on this machine."""
    name = os.environ.get(LAUNCH_FOLDER)
    return Path(name) if name and Path(name).is_dir() else None


def own_rank() -> int:
    """This process's rank, 0 where nothing says."""
    return int(os.environ.get("RANK", "0"))


def tell_start(folder: Path) -> None:
    """Say that this rank runs."""
    _write(folder / f"rank_{own_rank()}.start", RankStart(own_rank(), os.getpid(), os.getppid()))


def tell_end(folder: Path, code: int, message: str) -> None:
    """Say that this rank ends; a launcher that is gone has no ear for it."""
    with contextlib.suppress(OSError):
        _write(folder / f"rank_{own_rank()}.end", RankEnd(own_rank(), code, message))


def starts(folder: Path) -> list[RankStart]:
    """The ranks that began, by rank."""
    return sorted((RankStart(**record) for record in _read(folder, "start")), key=lambda told: told.rank)


def ends(folder: Path) -> list[RankEnd]:
    """The ranks that ended by themselves, by rank."""
    return sorted((RankEnd(**record) for record in _read(folder, "end")), key=lambda told: told.rank)


def _write(path: Path, record: RankStart | RankEnd) -> None:
    write_whole(path, json.dumps(asdict(record)))


def _read(folder: Path, suffix: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(f"rank_*.{suffix}")]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be collected does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")
