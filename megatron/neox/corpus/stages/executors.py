"""Where the tasks of a stage run besides processes of this machine: on a Ray cluster, or as Slurm jobs.

datatrove's executors start them; what is done and what is not stays the stage's own bookkeeping, so that a run begun
here goes on there. The output folder must lie where all nodes see it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Any

from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.outputs import opened, remove
from megatron.neox.corpus.stages.slurm_jobs import NoteJob, jobs_note, slurm_folder
from megatron.neox.corpus.stages.stage import Phase, Stage
from megatron.neox.errors import DependencyError, InputError

if TYPE_CHECKING:
    from datatrove.executor.slurm import SlurmPipelineExecutor

_ROOT = Path(__file__).resolve().parents[4]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a task may use, and how Slurm is asked for it.

    Attributes:
        memory_gb: for each of the task's processor cores.
        tasks: jobs that share the tasks of a phase.
        workers: jobs at a time.
        sbatch: further options of sbatch, such as account.
    """

    workers: int
    tasks: int = 1000
    cores: int = 1
    memory_gb: int = 2
    partition: str = ""
    time: str = "24:00:00"
    sbatch: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseStep:
    """A phase as a step of a datatrove pipeline: each of `world_size` jobs does its share of the tasks."""

    stage: Stage
    place: int

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Do every world_size-th task."""
        phase = self.stage.phases[self.place]
        for number in range(rank, phase.count(), world_size):
            self.stage.run_task(phase, number)


@dataclass(frozen=True)
class FinishStep:
    """The end of a stage as a step of a datatrove pipeline of one job."""

    stage: Stage

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Add up the counts, and write summary.json."""
        self.stage.finish()


@dataclass(frozen=True)
class OnRay:
    """Runs the tasks of a phase on Ray, for `run_stage`.

    Args:
        address: of a cluster; none starts Ray on this machine.
    """

    resources: Resources
    address: str | None = None

    def __call__(self, stage: Stage, phase: Phase, pending: Sequence[int], workers: int) -> Iterator[Counts]:
        """What each task counted, once all are done.

        Raises:
            DependencyError: Ray or datatrove is not installed.
            NeoXError: what a task raises; it is done once more here, to tell.
        """
        if pending:
            self._run(stage, phase, len(pending), workers)
        for number in pending:
            yield stage.run_task(phase, number)

    def _run(self, stage: Stage, phase: Phase, num_pending: int, workers: int) -> None:
        try:
            import ray
            from datatrove.executor.ray import RayPipelineExecutor
        except ImportError as error:
            raise _not_installed("ray", error) from error
        if not ray.is_initialized():
            self._start(ray, workers)
        RayPipelineExecutor(
            [PhaseStep(stage, stage.phases.index(phase))],
            tasks=min(self.resources.tasks, phase.count()),
            workers=min(workers, num_pending),
            cpus_per_task=self.resources.cores,
            mem_per_cpu_gb=self.resources.memory_gb if self.address else 0,
            skip_completed=False,
            logging_dir=str(stage.state / "datatrove" / phase.name),
        ).run()

    def _start(self, ray: Any, workers: int) -> None:
        """Join the cluster, or start one on this machine that nobody else can reach, until this process ends."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers unless told not to
        seen = {"runtime_env": {"env_vars": {"PYTHONPATH": _python_path()}}, "log_to_driver": False}
        if self.address:
            ray.init(self.address, **seen)
        else:
            ray.init(
                num_cpus=workers * self.resources.cores,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **seen,
            )


def submit_stage(
    stage: Stage, resources: Resources, *, resume: bool = False, overwrite: bool = False
) -> str | None:
    """Hand a stage to Slurm: an array of jobs a phase, each after the one before, and one that finishes.

    Returns:
        The number of the last job; none where the stage is finished already.

    Raises:
        InputError: no partition is given, there is no sbatch here, or it refuses a job.
        OutputError: as `run_stage`.
        DependencyError: datatrove is not installed.
    """
    if not resources.partition:
        raise InputError("--executor slurm needs --slurm-partition; sinfo lists the partitions")
    try:
        from datatrove.executor.slurm import SlurmPipelineExecutor
    except ImportError as error:
        raise _not_installed("slurm", error) from error
    with opened(stage, resume=resume, overwrite=overwrite) as finished:
        if finished is not None:
            return None
        # Jobs unpickle what lies there: nobody else may write to it.
        folder, note = slurm_folder(stage.output), jobs_note(stage.output)
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        note.unlink(missing_ok=True)
        try:
            return _submit(SlurmPipelineExecutor, stage, resources)
        finally:
            if not note.exists():
                shutil.rmtree(folder)
                if not stage.has_begun():
                    remove(stage)


def _submit(executor: Any, stage: Stage, resources: Resources) -> str:
    """Each phase after the one before; the number of the last job."""
    last: SlurmPipelineExecutor | None = None
    steps: list[tuple[str, Any]] = [
        *((phase.name, PhaseStep(stage, place)) for place, phase in enumerate(stage.phases)),
        ("finish", FinishStep(stage)),
    ]
    for name, step in steps:
        last = _slurm_jobs(executor, stage, name, step, resources, last)
        try:
            last.run()
        except FileNotFoundError as error:
            raise InputError(
                f"--executor slurm: {error.filename} is not here; run it where jobs are submitted"
            ) from error
        except CalledProcessError as error:
            raise InputError(f"sbatch takes no job of the phase {name}; it says why above") from error
    assert last is not None
    return str(last.job_id)


def _slurm_jobs(
    executor: Any, stage: Stage, name: str, step: Any, resources: Resources, before: Any
) -> SlurmPipelineExecutor:
    num_tasks = 1 if name == "finish" else _num_jobs(stage, name, resources)
    return executor(
        [step],
        tasks=num_tasks,
        workers=min(resources.workers, num_tasks),
        time=resources.time,
        partition=resources.partition,
        cpus_per_task=resources.cores,
        mem_per_cpu_gb=resources.memory_gb,
        job_name=f"{stage.name}-{name}",
        qos="",
        env_command=f"export PYTHONPATH={quote(_python_path())} PATH={quote(str(Path(sys.executable).parent))}:$PATH",
        sbatch_args=resources.sbatch,
        depends=before,
        skip_completed=False,
        job_id_retriever=NoteJob(jobs_note(stage.output).absolute()),
        logging_dir=str((slurm_folder(stage.output) / name).absolute()),
    )


def _num_jobs(stage: Stage, name: str, resources: Resources) -> int:
    """Of a phase whose tasks are known only when the one before is done, as many as may be."""
    phase = next(phase for phase in stage.phases if phase.name == name)
    return min(resources.tasks, phase.num_tasks) if isinstance(phase.num_tasks, int) else resources.tasks


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))


def _not_installed(executor: str, error: ImportError) -> DependencyError:
    return DependencyError(
        f"--executor {executor} needs more packages ({error}): pip install -r requirements/requirements-scale.txt"
    )
