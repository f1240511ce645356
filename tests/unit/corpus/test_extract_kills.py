"""SIGKILL at random instants of an extraction, then --resume: the output is what it would have been."""

from __future__ import annotations

import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from megatron.neox.corpus.extract import extraction
from megatron.neox.corpus.source_files import ExtractSettings
from megatron.neox.corpus.stage import run_stage

# What the interpreter tells of whoever touches the disk: every file that is read is one, and so is every rename.
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "shutil.rmtree")


@dataclass(frozen=True)
class Case:
    """An extraction that is killed before its operation of some number."""

    source: Path
    folder: Path
    form: Literal["parquet", "tree"]

    def settings(self, name: str) -> ExtractSettings:
        return ExtractSettings(
            input=self.source, output=self.folder / name, format=self.form, repositories_per_task=2
        )

    def run(self, name: str, *, kill_at: int | None = None) -> int | None:
        """Run it in a process of its own; return the number of its operations, None where it was killed."""
        count = self.folder / "count"
        child = os.fork()
        if child == 0:
            operations = 0

            def note(event: str, arguments: tuple[Any, ...]) -> None:
                nonlocal operations
                del arguments
                if event in OPERATIONS:
                    if operations == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    operations += 1

            try:
                sys.addaudithook(note)
                run_stage(extraction(self.settings(name)), resume=True)
                count.write_text(str(operations))
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or status == 0
        return None if os.WIFSIGNALED(status) else int(count.read_text())


Known = tuple[Case, dict[Path, bytes], int]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=["parquet", "tree"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """The case, its straight output, and the number of its operations."""
    source = tmp_path_factory.mktemp("source")
    for repository in range(8):
        for number in range(6):
            path = source / "Python" / f"org{repository}" / "project" / "a" / f"{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"def f{repository}(x):\n    return x + {number}\n" * 20)
    case = Case(source, tmp_path_factory.mktemp("out"), request.param)
    # Warm, so that imports are no part of what is killed.
    run_stage(extraction(case.settings("warm")))
    num_operations = case.run("straight")
    assert num_operations is not None
    return case, contents(case.folder / "straight"), num_operations


INSTANTS = [pytest.param(seed, marks=[] if seed < 3 else [pytest.mark.chaos]) for seed in range(50)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", INSTANTS)
def test_a_killed_extraction_goes_on_and_gives_the_same_bytes(case: Known, seed: int) -> None:
    killed, straight, num_operations = case
    name = f"killed{seed}"
    numbers = random.Random(seed)
    assert killed.run(name, kill_at=numbers.randrange(num_operations)) is None
    killed.run(
        name, kill_at=numbers.randrange(num_operations)
    )  # once more while it goes on, if it takes so long
    run_stage(extraction(killed.settings(name)), resume=True)
    assert contents(killed.folder / name) == straight
    assert not (killed.folder / name / ".stage").exists()
