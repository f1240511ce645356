"""Stages: passes over a corpus made of tasks that are each done whole, so that a run goes on where it was killed.

A stage is a list of phases, a phase a number of independent tasks; a phase begins when the one before it is done::

    OUTPUT/shard-00000.parquet ...   what the tasks write, each file under its name when it is whole
    OUTPUT/summary.json              the counts of all tasks and the settings: written last, so it says "finished"
    OUTPUT/.stage/                   until then: settings.json, done/PHASE-NUMBER.json with the counts of each
                                     task that is done, and work/, which phases hand each other things in

What a task writes depends on its number, the settings and the input alone. So the output is the same however often
a run was killed, and on however many processes it ran.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.errors import ResourceError
from megatron.neox.files import write_whole

SUMMARY = "summary.json"


def _all_alike(number: int) -> int:
    del number
    return 0


@dataclass(frozen=True)
class Phase:
    """Tasks 0 .. num_tasks - 1, in any order and on any machine.

    Args:
        num_tasks: or a function that tells it once the phases before are done.
        run: called with a task's number; returns what to count. It is sent to other processes, so it is a function
            of a module, or a method of something that can be pickled.
        weight: how long a task takes, as far as that is known, in any unit: the longest begin first, or one of them
            would run alone in the end.
    """

    name: str
    num_tasks: int | Callable[[], int]
    run: Callable[[int], Counts | None]
    weight: Callable[[int], int] = _all_alike

    def count(self) -> int:
        """How many tasks there are; the phases before must be done."""
        return self.num_tasks if isinstance(self.num_tasks, int) else self.num_tasks()


def _nothing_more(counts: Counts) -> Mapping[str, Any]:
    del counts
    return {}


def _nothing_to_check() -> None: ...


@dataclass(frozen=True)
class Stage:
    """A pass over a corpus.

    Args:
        name: the verb, such as `filter`.
        output: the folder it writes.
        settings: whatever decides the output, as JSON knows it; inputs by what they are, not by where they lie.
        describe: called when all tasks are done, with the counts of all; what it returns joins summary.json. Raises
            InputError where the input held nothing that the stage is for.
        inputs: files and folders that it reads, none of which the output may replace.
        check_inputs: called where a run that was stopped goes on; raises OutputError where an input is not what it
            was for the tasks that are done.
        option: that names the output, for messages.
        prepare: called in each worker as it starts. Where it is given there is work for all of them, and they start
            with the first phase, not with the first of several tasks.
    """

    name: str
    output: Path
    settings: Mapping[str, Any]
    phases: Sequence[Phase]
    describe: Callable[[Counts], Mapping[str, Any]] = _nothing_more
    inputs: Sequence[Path] = ()
    check_inputs: Callable[[], None] = _nothing_to_check
    option: str = "--output"
    prepare: Callable[[], object] | None = None

    @property
    def state(self) -> Path:
        """Where an unfinished run keeps what it knows."""
        return self.output / ".stage"

    @property
    def work(self) -> Path:
        """Where phases hand things to later ones; gone when the stage is finished."""
        return work_folder(self.output)

    def pending(self, phase: Phase) -> list[int]:
        """Numbers of the tasks that are not done."""
        return [number for number in range(phase.count()) if not self._done(phase, number).exists()]

    def run_task(self, phase: Phase, number: int) -> Counts:
        """Do a task, unless it is done, and remember that it is; gives what it counted."""
        done = self._done(phase, number)
        if done.exists():
            return Counts.from_json(json.loads(done.read_text("utf-8")))
        counts = phase.run(number) or Counts()
        write_whole(done, json.dumps(counts.to_json()))
        return counts

    def finish(self) -> dict[str, Any]:
        """Add up what the tasks counted, and write summary.json.

        Raises:
            ResourceError: tasks are not done; they failed on another machine.
        """
        counts = Counts()
        for phase in self.phases:
            if pending := self.pending(phase):
                raise ResourceError(
                    f"{self.name}: {len(pending)} of {phase.count()} tasks of the phase {phase.name} are not done, "
                    f"the first of them {pending[0]}; --resume does them again"
                )
            for number in range(phase.count()):
                counts.merge(self.run_task(phase, number))
        summary = {
            "stage": self.name,
            "settings": dict(self.settings),
            **counts.to_json(),
            **self.describe(counts),
        }
        write_whole(self.output / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(self.state, ignore_errors=True)
        return summary

    def has_begun(self) -> bool:
        """Whether more is done than the first task, which may have but looked at the input."""
        return len(list((self.state / "done").glob("*.json"))) > 1

    def _done(self, phase: Phase, number: int) -> Path:
        return self.state / "done" / f"{phase.name}-{number:05d}.json"


def counts_so_far(output: Path) -> Counts:
    """What the tasks that are done have counted, of the stage that writes `output`."""
    counts = Counts()
    for done in (output / ".stage" / "done").glob("*.json"):
        counts.merge(Counts.from_json(json.loads(done.read_text("utf-8"))))
    return counts


def work_folder(output: Path) -> Path:
    """Where the phases of the stage that writes `output` hand things to each other."""
    return output / ".stage" / "work"


def fingerprint(paths: Sequence[Path]) -> str:
    """A hash of files' names and contents: what a stage's settings say of its inputs."""
    digest = sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()
