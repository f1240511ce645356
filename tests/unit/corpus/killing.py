"""SIGKILL at a random instant of a run that writes below a folder, then the run again: nothing must differ.

Runs are processes of their own, forked from a server that has imported what they need and has no threads yet: so an
instant is one of the work, and fifty kills take seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

# What the interpreter tells of whoever touches the disk: every file that it reads is one, and so is every rename.
_OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "shutil.rmtree")
_PRELOADED = [
    "__main__", "tests.unit.corpus.test_stage_kills", "pyarrow.parquet", "pyarrow.compute",
    "matplotlib.backends.backend_agg",
    "megatron.neox.corpus.release.clean", "megatron.neox.corpus.extraction.extract",
    "megatron.neox.corpus.release.card",
    "megatron.neox.corpus.index.writer", "megatron.neox.corpus.stages.options", "megatron.neox.data.tokenize",
    "megatron.neox.reports.funnel",
]  # fmt: skip
_processes = multiprocessing.get_context("forkserver")
_SECONDS = 100

Run = Callable[[Path], object]
"""Writes to a folder, or goes on with what a killed one left there; can be pickled."""


def instants(num_usual: int) -> list[Any]:
    """Seeds of 50 instants, of which the first run with the other tests."""
    return [pytest.param(seed, marks=[] if seed < num_usual else [pytest.mark.chaos]) for seed in range(50)]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _work(run: Run, output: Path, count: Path, kill_at: int | None) -> None:
    operations = 0

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal operations
        del arguments
        if event in _OPERATIONS:
            if operations == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            operations += 1

    sys.addaudithook(note)
    begun = time.monotonic()
    count.with_suffix(".begun").touch()
    run(output)
    count.write_text(f"{operations} {time.monotonic() - begun}")


@dataclass(frozen=True)
class Straight:
    """A run that was left alone: what it wrote, in how many operations on files, and in how many seconds."""

    run: Run
    folder: Path
    written: dict[Path, bytes]
    num_operations: int
    seconds: float

    def check(self, seed: int) -> None:
        """Kill a run before an operation (even seeds) or after a while (odd ones), twice; then let it end."""
        chance, output = Random(seed), self.folder / f"killed{seed}"
        while not self._is_killed(output, chance, seed % 2 == 0):
            shutil.rmtree(output)  # it was faster: once more
        self._is_killed(output, chance, seed % 2 == 0)  # while it goes on, if that takes so long
        _go(self.run, output)
        assert contents(output) == self.written
        shutil.rmtree(output)

    def _is_killed(self, output: Path, chance: Random, by_operation: bool) -> bool:
        if by_operation:
            return _go(self.run, output, kill_at=chance.randrange(self.num_operations)) is None
        return _go(self.run, output, kill_after=chance.uniform(0, self.seconds)) is None


def straight(run: Run, folder: Path) -> Straight:
    """Run it unharmed; the second time, when what is made once is there."""
    _go(run, folder / "warm")
    known = _go(run, folder / "straight")
    assert known is not None
    written = contents(folder / "straight")
    assert written == contents(folder / "warm")
    assert not [path for path in (folder / "straight").rglob("*") if path.name.startswith(".")]
    return Straight(run, folder, written, *known)


def is_killed_before(operation: int, run: Run, output: Path) -> bool:
    """Kill a run before one of its operations on files, counted from 0; whether it has as many."""
    return _go(run, output, kill_at=operation) is None


def _go(
    run: Run, output: Path, *, kill_at: int | None = None, kill_after: float | None = None
) -> tuple[int, float] | None:
    """Run it in a process of its own; returns its operations and seconds, None where it was killed."""
    output.mkdir(exist_ok=True)
    count = output.with_name(f"{output.name}.count")
    begun = count.with_suffix(".begun")
    begun.unlink(missing_ok=True)
    _processes.set_forkserver_preload(_PRELOADED)
    process = _processes.Process(target=_work, args=(run, output, count, kill_at))
    process.start()
    if kill_after is not None:
        deadline = time.monotonic() + _SECONDS
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        process.join(kill_after)
        process.kill()
    process.join(_SECONDS)
    assert process.exitcode in (0, -signal.SIGKILL)
    if process.exitcode:
        return None
    operations, seconds = count.read_text().split()
    return int(operations), float(seconds)
