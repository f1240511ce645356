"""tools/collect/deduplicate.py, as it is run: killed at any instant, told nonsense, run twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.shards import SourceFile
from tests.integration.training_case import ROOT
from tests.unit.corpus.deduplication.files import contents, read_all, source, write_shards

TOOL = [sys.executable, str(ROOT / "tools" / "collect" / "deduplicate.py")]


def run(cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*TOOL, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def many_files(num_files: int) -> list[SourceFile]:
    """Files of 40 kinds: exact copies, near ones, and some alone."""
    chance = random.Random(4)
    kinds = [
        [f"value_{chance.randrange(10**9)} = {chance.random()}\n" for _ in range(120)] for _ in range(40)
    ]
    files = []
    for number in range(num_files):
        lines = list(chance.choice(kinds))
        for _ in range(chance.randrange(4)):
            lines[chance.randrange(len(lines))] = f"edited_{chance.randrange(20)}\n"
        files.append(source("".join(lines), f"{number}.py", stars=chance.randrange(9)))
    return files


def shards_for_kills(folder: Path) -> Path:
    files = many_files(600)
    return write_shards(folder, *(files[start : start + 60] for start in range(0, 600, 60)))


def assert_kills_cost_nothing(tmp_path: Path, arguments: list[str], num_kills: int) -> None:
    """Kill the command's whole group `num_kills` times, each a random while after its start; then let it end."""
    shards = shards_for_kills(tmp_path / "in")
    begun = time.monotonic()
    assert run(tmp_path, "--input", shards, "--output", "straight", *arguments).returncode == 0
    duration = time.monotonic() - begun
    chance = random.Random(8)
    command = [*TOOL, "--input", str(shards), "--output", "killed", "--resume", *arguments]
    kills = 0
    while kills < num_kills:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(chance.uniform(0.1, 1.0) * duration)
            assert process.returncode == 0
            shutil.rmtree(tmp_path / "killed")  # it was faster: once more
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    done = run(tmp_path, "--input", shards, "--output", "killed", "--resume", *arguments)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


EXACT, NEAR = ["--workers", "1"], ["--near", "--workers", "1"]


@pytest.mark.parametrize(("arguments", "num_kills"), [(EXACT, 1), (NEAR, 2)], ids=["exact", "near"])
def test_killed_and_resumed_it_writes_the_same_bytes(
    tmp_path: Path, arguments: list[str], num_kills: int
) -> None:
    assert_kills_cost_nothing(tmp_path, arguments, num_kills)


@pytest.mark.chaos
@pytest.mark.parametrize("arguments", [EXACT, ["--near", "--workers", "2"]], ids=["exact", "near"])
def test_killed_fifty_times_it_writes_the_same_bytes(tmp_path: Path, arguments: list[str]) -> None:
    assert_kills_cost_nothing(tmp_path, arguments, 50)


def test_of_shards_exact_copies_then_near_ones_are_left_out(tmp_path: Path) -> None:
    files = many_files(60)
    shards = write_shards(tmp_path / "in", files[:30], files[30:])
    done = run(tmp_path, "--input", shards, "--output", "unique", "--workers", "1")
    assert done.returncode == 0, done.stderr
    unique = read_all(tmp_path / "unique")
    assert f"kept: {len({file.sha256 for file in files})} files" in done.stdout
    assert f"left out, duplicate: {len(files) - len(unique)} files" in done.stdout
    done = run(
        tmp_path,
        "--input",
        "unique",
        "--output",
        "distinct",
        "--near",
        "codeparrot",
        "--threshold",
        "0.8",
        "--workers",
        "1",
    )
    assert done.returncode == 0, done.stderr
    distinct = read_all(tmp_path / "distinct")
    assert len(distinct) < len(unique)
    assert f"left out, near_duplicate: {len(unique) - len(distinct)} files" in done.stdout
    # The same output again: refused, or left as it is, or made anew.
    before = contents(tmp_path / "unique")
    done = run(tmp_path, "--input", shards, "--output", "unique")
    assert (done.returncode, "--resume goes on with it, --overwrite begins anew" in done.stderr) == (2, True)
    done = run(tmp_path, "--input", shards, "--output", "unique", "--resume", "--key", "normalized")
    assert (done.returncode, "key was 'raw' and is 'normalized'" in done.stderr) == (2, True)
    assert contents(tmp_path / "unique") == before


def test_a_folder_is_left_as_it_is_unless_told(tmp_path: Path) -> None:
    (tmp_path / "Code").mkdir()
    for name in ("b.py", "a.py"):
        (tmp_path / "Code" / name).write_text("x = 1\n")
    done = run(tmp_path, "--input", "Code")
    assert (done.returncode, done.stdout) == (0, "b.py\ta.py\n")
    assert "nothing was deleted; --in-place does" in done.stderr
    assert len(os.listdir(tmp_path / "Code")) == 2
    done = run(tmp_path, "--input", "Code", "--in-place", "--output", "gone.txt")
    assert (done.returncode, done.stdout) == (0, "")
    assert os.listdir(tmp_path / "Code") == ["a.py"]
    assert (tmp_path / "gone.txt").read_text() == "b.py\ta.py\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "absent", "--output", "o"], "absent is not a folder"),
        (["--input", "shards"], "shards need an --output"),
        (["--input", "shards", "--output", "o", "--in-place"], "--in-place is for a folder of files"),
        (["--input", "shards", "--output", "o", "--near", "bigcod"], "did you mean bigcode?"),
        (["--input", "shards", "--output", "o", "--threshold", "2"], "--threshold goes with --near"),
        (["--input", "shards", "--output", "o", "--against", "no.zip"], "the index no.zip does not exist"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_shards(tmp_path / "shards", [source("x = 1\n", "a.py")])
    done = run(tmp_path, *arguments)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert os.listdir(tmp_path) == ["shards"]
