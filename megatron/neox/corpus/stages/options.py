"""What every tool that runs a stage can be told."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.executors import OnRay, Resources, submit_stage
from megatron.neox.corpus.stages.running import RunTasks, Step, run_stage
from megatron.neox.corpus.stages.stage import Stage
from megatron.neox.errors import log_to_stderr

log = logging.getLogger(__name__)


def add_stage_options(parser: argparse.ArgumentParser, *, output: str | None = None) -> None:
    """Add --output, --resume, --overwrite, and where the stage runs.

    Args:
        output: what --output gets, of a tool that also does things without one.
    """
    add = parser.add_argument
    add("--output", type=Path, required=output is None, metavar="FOLDER",
        help=output or "gets the shards and summary.json")  # fmt: skip
    add("--resume", action="store_true", help="go on with a run that was stopped")
    add("--overwrite", action="store_true", help="begin anew where another run's output stands")
    add("--workers", type=_positive, default=len(os.sched_getaffinity(0)), metavar="N",
        help="tasks at a time (default: the processor cores, %(default)s)")  # fmt: skip
    add_executor_options(parser)


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    """Add --executor, and what Slurm and Ray have to be told."""
    group = parser.add_argument_group("where it runs")
    add = group.add_argument
    add("--executor", choices=["local", "ray", "slurm"], default="local",
        help="processes of this machine, a Ray cluster, or Slurm jobs (default: %(default)s)")  # fmt: skip
    add("--tasks", type=_positive, default=1000, metavar="N",
        help="jobs that share the tasks of a phase, for Ray and Slurm (default: %(default)s)")  # fmt: skip
    add("--task-cores", type=_positive, default=1, metavar="N", help="processor cores of a job")
    add("--task-memory-gb", type=_positive, default=2, metavar="N", help="memory for each core of a job")
    add("--ray-address", metavar="HOST:PORT", help="a Ray cluster (default: Ray is started on this machine)")
    add("--slurm-partition", default="", metavar="NAME")
    add(
        "--slurm-time",
        default="24:00:00",
        metavar="H:M:S",
        help="longest a job may take (default: %(default)s)",
    )
    add("--sbatch", action="append", default=[], type=_key_value, metavar="KEY=VALUE",
        help="a further option of sbatch, such as account=NAME; repeatable")  # fmt: skip


def run_as_told(stage: Stage, options: argparse.Namespace) -> dict[str, Any] | None:
    """Run the stage, print its counts, and return its summary; none where Slurm has it now.

    Raises:
        OutputError, ResourceError: as `run_stage`.
        DependencyError, InputError: as `OnRay` and `submit_stage`.
    """
    log_to_stderr()
    begun = {"resume": options.resume, "overwrite": options.overwrite}
    if options.executor == "slurm":
        job = submit_stage(stage, told_resources(options), **begun)
        if job is not None:
            sys.stdout.write(f"{stage.output}: job {job} finishes it; squeue shows how far it is\n")
            return None
    summary = run_stage(
        stage, workers=options.workers, report=_Progress(), run_tasks=told_executor(options), **begun
    )
    counts = Counts.from_json(summary)
    sys.stdout.write(f"{stage.output}:\n{counts.lines()}")
    if not counts.total_kept().num_files:
        most = next(iter(counts.reasons().items()), None)
        why = f": {most[1].num_files:,} were left out as {most[0]}" if most else ""
        log.warning("NOTE: %s holds not one file%s", stage.output, why)
    return summary


def told_executor(options: argparse.Namespace) -> RunTasks | None:
    """Where `run_stage` runs tasks."""
    return OnRay(told_resources(options), options.ray_address) if options.executor == "ray" else None


def told_resources(options: argparse.Namespace) -> Resources:
    """What a job may use."""
    return Resources(
        workers=options.workers,
        tasks=options.tasks,
        cores=options.task_cores,
        memory_gb=options.task_memory_gb,
        partition=options.slurm_partition,
        time=options.slurm_time,
        sbatch=dict(options.sbatch),
    )


class _Progress:
    """A line of the log each ten seconds at most: how many tasks, files and bytes are done, and how fast."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._counts = Counts()

    def __call__(self, step: Step) -> None:
        self._counts.merge(step.counts)
        now = time.monotonic()
        if now - self._last >= 10:
            self._last = now
            kept = self._counts.total_kept()
            log.info(
                "%s: %d of %d tasks, %s files kept, %.1f MB/s",
                step.phase, step.num_done, step.num_tasks, f"{kept.num_files:,}",
                kept.num_bytes / 1e6 / (now - self._start),
            )  # fmt: skip


def _key_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise argparse.ArgumentTypeError("has the form KEY=VALUE")
    return key, value


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
