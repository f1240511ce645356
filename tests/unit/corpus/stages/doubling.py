"""A stage small enough to see through: what other processes run, too, has to be importable."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.shards import SourceFile, new_shard, shard_name
from megatron.neox.corpus.stages.stage import Phase, Stage, work_folder


def row(number: int) -> SourceFile:
    text = f"x = {number}\n"
    return SourceFile(
        "org/project", "Python", f"a/{number}.py", "0" * 64, len(text), 7, ["MIT"], None, False, text
    )


@dataclass(frozen=True)
class Numbers:
    """Doubles the numbers 0 .. 9 in one phase, and writes a shard of each in the next."""

    output: Path
    dies_at: int | None = None

    def stage(self, **settings: object) -> Stage:
        phases = [Phase("double", 10, self.double), Phase("write", self.num_doubled, self.write)]
        return Stage("numbers", self.output, {"seed": 1, **settings}, phases, self.describe)

    def double(self, number: int) -> None:
        if number == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        (work_folder(self.output) / str(number)).write_text(str(2 * number))

    def num_doubled(self) -> int:
        return len(list(work_folder(self.output).iterdir()))

    def write(self, number: int) -> Counts:
        doubled = int((work_folder(self.output) / str(number)).read_text())
        with new_shard(self.output / shard_name(number)) as shard:
            shard.write(row(doubled))
        counts = Counts()
        counts.keep("Python", doubled)
        counts.numbers["tokens"] = number
        if number % 2:
            counts.leave_out("odd", "Python", 1)
        return counts

    def describe(self, counts: Counts) -> dict[str, int]:
        return {"files": counts.total_kept().num_files}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
