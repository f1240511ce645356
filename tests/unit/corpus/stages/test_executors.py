from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.executors import Resources, submit_stage
from megatron.neox.corpus.stages.stage import run_stage
from megatron.neox.errors import InputError
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
from megatron.neox.corpus.stages.stage import run_stage
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


@pytest.mark.slow
def test_slurm_jobs_give_what_processes_of_this_machine_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("sbatch", SBATCH.format(python=sys.executable)),
        ("srun", SRUN),
        ("scontrol", "#!/bin/sh\necho here\n"),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "odd $(exit 1)").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path / 'odd $(exit 1)'}")
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
