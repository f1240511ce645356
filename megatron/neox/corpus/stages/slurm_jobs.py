"""The Slurm jobs of a stage: noted beside its output, so that nobody does their tasks a second time."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from megatron.neox.errors import InputError, OutputError

_NEVER = "DependencyNeverSatisfied"  # what such a job waits for failed: it will not run


def slurm_folder(output: Path) -> Path:
    """What the jobs run, their logs and their numbers: beside the output, which holds shards alone."""
    output = Path(os.path.abspath(output))  # `.` has no name
    return output.parent / f".{output.name}.slurm"


def jobs_note(output: Path) -> Path:
    """The file with the numbers, one a line."""
    return slurm_folder(output) / "jobs"


@dataclass(frozen=True)
class NoteJob:
    """Reads the number of a job from what sbatch says, and notes it at once."""

    note: Path

    def __call__(self, said: str) -> str:
        """The number.

        Raises:
            InputError: sbatch says something else.
        """
        found = re.search(r"\bjob (\d+)", said)
        if found is None:
            raise InputError(f"sbatch gave no number of a job, but: {said.strip()!r}")
        with self.note.open("a", encoding="ascii") as note:
            note.write(found[1] + "\n")
        return found[1]


def refuse_queued(output: Path) -> None:
    """Refuse to do what jobs in the queue are going to do.

    Raises:
        OutputError: there are some; names them.
        InputError: squeue cannot be asked.
    """
    note = jobs_note(output)
    noted = note.read_text(encoding="ascii").split() if note.exists() else []
    if noted and (queued := _queued(noted, note)):
        raise OutputError(
            f"jobs of {output} are in the queue: {', '.join(queued)}; wait until squeue lists them no more, or "
            f"scancel {' '.join(queued)} first"
        )


def _queued(jobs: list[str], note: Path) -> list[str]:
    """Those of the jobs that run or will run."""
    trouble = f"squeue cannot tell whether jobs {', '.join(jobs)} are still in the queue"
    remedy = f"run it where jobs are submitted, or remove {note} once they are done"
    command = ["squeue", "--noheader", "--format=%i %r", f"--jobs={','.join(jobs)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError(f"{trouble}: it is not here; {remedy}") from error
    if done.returncode:
        if "Invalid job id" in done.stderr:  # all of them are forgotten
            return []
        raise InputError(f"{trouble}: {done.stderr.strip()}; {remedy}")
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip()]
    found = {words[0].split("_")[0] for words in listed if _NEVER not in words[1:]}
    return [job for job in jobs if job in found]
