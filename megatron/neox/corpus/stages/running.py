"""Runs stages, in processes of this machine or where an executor puts their tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.outputs import opened, remove
from megatron.neox.corpus.stages.processes import submit, worker_pool
from megatron.neox.corpus.stages.stage import Phase, Stage
from megatron.neox.errors import InputError, NeoXError, ResourceError
from megatron.neox.memory import trim_heap

log = logging.getLogger(__name__)

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


def _run_phase(
    stage: Stage, phase: Phase, workers: int, report: Callable[[Step], None], run_tasks: RunTasks
) -> None:
    pending, num_tasks = stage.pending(phase), phase.count()
    if num_tasks > 1:
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
    try:
        return _stage.run_task(_stage.phases[place], number)
    finally:
        trim_heap()  # or the pieces that a task leaves behind add up from task to task
