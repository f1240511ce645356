from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.executors import Resources, submit_stage
from megatron.neox.corpus.stages.running import run_stage
from megatron.neox.errors import InputError, OutputError
from tests.unit.corpus.stages.doubling import Numbers, contents

ROOT = Path(__file__).resolve().parents[4]

# What sbatch and srun do, as far as datatrove asks: every task of an array, one after another, on this machine.
SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
with open(os.environ["SUBMITTED"], "a") as log:
    log.write(" ".join(sys.argv[1:-1]) + " " + re.search("job-name=(.*)", script)[1] + "\\n")
last = int((re.search("array=0-([0-9]+)", script) or [0, 0])[1])
if "merge_stats" not in script:
    for number in range(last + 1):
        environment = os.environ | {{"SLURM_ARRAY_TASK_ID": str(number), "SLURM_NODELIST": "here", "RUN_OFFSET": "0"}}
        subprocess.run(["bash", "-c", script], env=environment, check=True, stdout=subprocess.DEVNULL)
print("Submitted batch job", sum(1 for _ in open(os.environ["SUBMITTED"])))
"""
SRUN = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do case $1 in -n) shift 2;; *) shift;; esac; done\nexec "$@"\n'


# In a process of its own: datatrove starts Ray's tasks in threads, and waits for ever where a warning, here an error,
# ends one of them.
ON_RAY = """
import sys
from pathlib import Path
from megatron.neox.corpus.stages.executors import OnRay, Resources
from megatron.neox.corpus.stages.running import run_stage
from tests.unit.corpus.stages.doubling import Numbers
run_stage(Numbers(Path(sys.argv[1])).stage(), workers=2, run_tasks=OnRay(Resources(workers=2, tasks=2)))
"""


@pytest.mark.slow
def test_ray_gives_what_processes_of_this_machine_give(tmp_path: Path) -> None:
    run_stage(Numbers(tmp_path / "here").stage())
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY, str(tmp_path / "ray")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Put scripts where programs are looked for first."""
    folder.mkdir(exist_ok=True)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
def test_slurm_jobs_give_what_processes_of_this_machine_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = SBATCH.format(python=sys.executable)
    install(tmp_path / "bin", monkeypatch, sbatch=sbatch, srun=SRUN, scontrol="#!/bin/sh\necho here\n")
    (tmp_path / "odd $(exit 1)").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "odd $(exit 1)"))  # a task finds the code without
    monkeypatch.setenv("SUBMITTED", str(tmp_path / "submitted"))
    run_stage(Numbers(tmp_path / "here").stage())
    resources = Resources(workers=2, tasks=2, partition="cpu", sbatch={"account": "code"})
    job = submit_stage(Numbers(tmp_path / "slurm").stage(), resources)
    assert contents(tmp_path / "slurm") == contents(tmp_path / "here")
    submitted = [line.split() for line in (tmp_path / "submitted").read_text().splitlines()]
    names = [words[-1] for words in submitted if not words[-1].startswith("merge")]
    assert [name for name in names if name in ("numbers-double", "numbers-write", "numbers-finish")]
    assert any("--dependency=afterok:" in word for words in submitted for word in words)
    assert job is not None
    assert (tmp_path / ".slurm.slurm").stat().st_mode & 0o777 == 0o700
    assert submit_stage(Numbers(tmp_path / "slurm").stage(), resources, resume=True) is None


def test_slurm_needs_a_partition_and_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--slurm-partition; sinfo lists"):
        submit_stage(Numbers(tmp_path / "out").stage(), Resources(workers=1))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch is not here; run it where jobs are submitted"):
        submit_stage(Numbers(tmp_path / "out").stage(), Resources(workers=1, partition="cpu"))
    assert not (tmp_path / "out").exists()


# Jobs that are taken, and wait; squeue lists those that the file names, as it does after 1: a format of job and reason.
WAITING = """#!{python}
import os, sys
with open(os.environ["SUBMITTED"], "a") as log:
    log.write("x")
if os.path.getsize(os.environ["SUBMITTED"]) > int(os.environ.get("MOST_JOBS", 99)):
    sys.exit("sbatch: error: no more")
print("Submitted batch job", 100 + os.path.getsize(os.environ["SUBMITTED"]), "on cluster one")
"""
SQUEUE = """#!/bin/sh
if [ -s "$QUEUE" ]; then cat "$QUEUE"; else echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; fi
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What squeue tells, of a sbatch that runs nothing."""
    install(tmp_path / "bin", monkeypatch, sbatch=WAITING.format(python=sys.executable), squeue=SQUEUE)
    monkeypatch.setenv("SUBMITTED", str(tmp_path / "submitted"))
    monkeypatch.setenv("QUEUE", str(tmp_path / "queue"))
    return tmp_path / "queue"


def test_what_jobs_in_the_queue_will_do_is_not_done_again(tmp_path: Path, queue: Path) -> None:
    stage, resources = Numbers(tmp_path / "out").stage(), Resources(workers=1, partition="cpu")
    assert submit_stage(stage, resources) == "105"
    queue.write_text(
        "101_[3-9%2] JobArrayTaskLimit\n101_2 None\n105 Dependency\n103 DependencyNeverSatisfied\n"
    )
    told = r"jobs of .*out are in the queue: 101, 105; .* or scancel 101 105 first"
    for resume in (True, False):
        with pytest.raises(OutputError, match=told):
            submit_stage(stage, resources, resume=resume, overwrite=not resume)
        with pytest.raises(OutputError, match=told):
            run_stage(stage, resume=resume, overwrite=not resume)
    queue.write_text("103 DependencyNeverSatisfied\n")
    assert submit_stage(stage, resources, resume=True) == "111"
    queue.unlink()
    run_stage(stage, resume=True)
    run_stage(Numbers(tmp_path / "here").stage())
    assert contents(tmp_path / "out") == contents(tmp_path / "here")


def test_a_queue_that_cannot_be_asked_is_told(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Numbers(tmp_path / "out").stage()
    submit_stage(stage, Resources(workers=1, partition="cpu"))
    install(tmp_path / "bin", monkeypatch, squeue="#!/bin/sh\necho no controller >&2\nexit 1\n")
    with pytest.raises(
        InputError, match=r"whether jobs 101, .*: no controller; .*remove .*\.out\.slurm/jobs"
    ):
        run_stage(stage, resume=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"whether jobs 101, .*: it is not here"):
        run_stage(stage, resume=True)


@pytest.mark.parametrize("most", [0, 2])
def test_a_job_that_is_refused_is_told(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setenv("MOST_JOBS", str(most))
    with pytest.raises(InputError, match="sbatch takes no job of the phase"):
        submit_stage(Numbers(tmp_path / "out").stage(), Resources(workers=1, partition="cpu"))
    assert (tmp_path / "out").exists() == (tmp_path / ".out.slurm").exists() == bool(most)
