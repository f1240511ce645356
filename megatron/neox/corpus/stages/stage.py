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
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.folders import lock_folder
from megatron.neox.corpus.stages.processes import submit, worker_pool
from megatron.neox.corpus.stages.slurm_jobs import refuse_queued
from megatron.neox.errors import NO_SPACE, InputError, NeoXError, OutputError, ResourceError
from megatron.neox.files import write_whole

log = logging.getLogger(__name__)

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


# (stage, phase, numbers of the tasks to do, how many at a time) -> what each counted.
RunTasks = Callable[[Stage, Phase, Sequence[int], int], Iterator[Counts]]


@dataclass(frozen=True)
class Step:
    """How far a phase is."""

    phase: str
    num_done: int
    num_tasks: int
    counts: Counts
    """Of the task that was done last."""


def run_stage(
    stage: Stage,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    report: Callable[[Step], None] = lambda _: None,
    run_tasks: RunTasks | None = None,
) -> dict[str, Any]:
    """Run a stage; return its summary.

    Where it fails before anything much is done, nothing is left of it.

    Args:
        resume: go on with a run that was stopped; of one that is finished, do nothing.
        overwrite: begin anew where another run's output stands.
        report: called in this process after every task.
        run_tasks: where the tasks run; none is `workers` processes of this machine.

    Raises:
        OutputError: the output exists and neither is asked for, other settings made it or other contents of an
            input, it is no stage's, or another run is writing it.
        ResourceError: a worker died, as it does when memory runs out.
        InputError: as the tasks and `describe`; then nothing is left.
    """
    with opened(stage, resume=resume, overwrite=overwrite) as finished:
        if finished is not None:
            return finished
        try:
            with _processes(stage, 1 if run_tasks else workers) as here:
                for phase in stage.phases:
                    _run_phase(stage, phase, workers, report, run_tasks or here)
        except BaseException:
            if not stage.has_begun():
                remove(stage)
            raise
        try:
            return stage.finish()
        except InputError:  # there is nothing in it
            remove(stage)
            raise


def remove(stage: Stage) -> None:
    """Leave nothing of a stage that came to nothing."""
    _clear(stage)
    with suppress(OSError):  # a link to the folder, or a mount point, stays
        stage.output.rmdir()


@contextmanager
def opened(stage: Stage, *, resume: bool, overwrite: bool) -> Iterator[dict[str, Any] | None]:
    """The output made ready, locked against a second run; gives the summary where the stage is finished already.

    Raises:
        OutputError: as `run_stage`; or jobs of it are in Slurm's queue.
        InputError: squeue cannot tell whether they are.
    """
    output = stage.output
    refuse_replacing(output, stage.inputs)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in NO_SPACE:  # no other name helps
            raise
        raise OutputError(f"cannot write {output}: {error.strerror}; give another {stage.option}") from error
    with lock_folder(output, stage.option):
        if stage.state.exists():
            refuse_queued(output)
        finished = _prepare(stage, resume=resume, overwrite=overwrite)
        if finished is not None:
            log.info("%s is finished already", output)
        yield finished


def refuse_replacing(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output that is an input, or holds one: overwriting it would cost what is to be read.

    Raises:
        OutputError: as it says.
    """
    for path in inputs:
        if path.resolve().is_relative_to(output.resolve()):
            raise OutputError(
                f"the output {output} {'is' if path.resolve() == output.resolve() else 'holds'} the input {path}, "
                "which would be lost; give another --output"
            )


def _prepare(stage: Stage, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    output, summary, settings = stage.output, stage.output / SUMMARY, stage.state / "settings.json"
    if any(output.iterdir()) and not (summary.exists() or stage.state.exists()):
        raise OutputError(f"{output} holds something that no stage wrote; give another {stage.option}")
    if overwrite:
        _clear(stage)
    elif any(output.iterdir()) and not resume:
        found = "is there" if summary.exists() else "holds a run that was not finished"
        raise OutputError(f"{output} {found}; --resume goes on with it, --overwrite begins anew")
    if summary.exists():
        content = json.loads(summary.read_text("utf-8"))
        _refuse_other_settings(stage, content["settings"])
        shutil.rmtree(stage.state, ignore_errors=True)
        return content
    if settings.exists():
        _refuse_other_settings(stage, json.loads(settings.read_text("utf-8")))
        stage.check_inputs()
    for folder in (stage.state / "done", stage.work):
        folder.mkdir(parents=True, exist_ok=True)
    write_whole(settings, json.dumps(dict(stage.settings), indent=2))
    return None


def _clear(stage: Stage) -> None:
    """Empty the output; what says "finished" goes first, and what says "ours" last, so that a kill costs nothing."""
    stage.state.mkdir(exist_ok=True)
    (stage.output / SUMMARY).unlink(missing_ok=True)
    for entry in stage.output.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        elif entry != stage.state:
            shutil.rmtree(entry)
    shutil.rmtree(stage.state)


def _refuse_other_settings(stage: Stage, found: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(dict(stage.settings)))
    different = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    if different:
        told = "; ".join(_difference(stage, key, found.get(key), wanted.get(key)) for key in different)
        raise OutputError(
            f"{stage.output} was begun with other settings: {told}; give those again, --overwrite it, "
            f"or give another {stage.option}"
        )


def _difference(stage: Stage, key: str, was: Any, is_now: Any) -> str:
    """In words; of lists as long, the first place where they differ, for they may name thousands of files."""
    if key == "input" and stage.inputs:  # hashes tell nobody anything
        return f"the input {stage.inputs[0]} is another than it was, or changed since"
    if isinstance(was, list) and isinstance(is_now, list) and len(was) == len(is_now):
        was, is_now = next(pair for pair in zip(was, is_now) if pair[0] != pair[1])
    return f"{key} was {was!r} and is {is_now!r}"


def _run_phase(
    stage: Stage, phase: Phase, workers: int, report: Callable[[Step], None], run_tasks: RunTasks
) -> None:
    pending, num_tasks = stage.pending(phase), phase.count()
    log.info("%s, %s: %d of %d tasks to do", stage.name, phase.name, len(pending), num_tasks)
    results = run_tasks(stage, phase, pending, workers)
    for num_done, counts in enumerate(results, num_tasks - len(pending) + 1):
        report(Step(phase.name, num_done, num_tasks, counts))


@contextmanager
def _processes(stage: Stage, workers: int) -> Iterator[RunTasks]:
    """Runs the tasks of all phases in the same processes of this machine: each takes a second to start.

    They get the stage once, when they start, for it may name every repository of a corpus.
    """
    with ExitStack() as opened_pool:
        pool: ProcessPoolExecutor | None = None
        if workers > 1 and stage.prepare is not None:
            pool = opened_pool.enter_context(worker_pool(workers, _begin, (stage,)))
            for _ in range(workers):
                submit(pool, _start)

        def run_tasks(_: Stage, phase: Phase, pending: Sequence[int], workers: int) -> Iterator[Counts]:
            nonlocal pool
            if workers <= 1 or len(pending) <= 1:
                for number in pending:
                    yield stage.run_task(phase, number)
                return
            pool = pool or opened_pool.enter_context(worker_pool(workers, _begin, (stage,)))
            place = next(place for place, other in enumerate(stage.phases) if other is phase)
            longest_first = sorted(pending, key=phase.weight, reverse=True)
            for future in as_completed([submit(pool, _run_task, place, number) for number in longest_first]):
                yield future.result()

        try:
            yield run_tasks
        except BrokenProcessPool as error:
            raise ResourceError(
                f"one of {workers} workers died, most likely for want of memory; --resume with fewer --workers goes on"
            ) from error


_stage: Stage | None = None  # of this worker process


def _begin(stage: Stage) -> None:
    global _stage
    _stage = stage
    if stage.prepare is not None:
        with suppress(NeoXError):  # a task will meet it, and tell
            stage.prepare()


def _start() -> None:
    """A pool starts a process for a task."""


def _run_task(place: int, number: int) -> Counts:
    assert _stage is not None
    return _stage.run_task(_stage.phases[place], number)


def fingerprint(paths: Sequence[Path]) -> str:
    """A hash of files' names and contents: what a stage's settings say of its inputs."""
    digest = sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()
