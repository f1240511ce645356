"""Real launches through DeepSpeed's runner: exit codes, signals, and that nobody survives a SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron.neox.launch.ranks import is_alive

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_SECONDS = 120

# A rank that needs no torch: it says that it is there, and does what the environment asks for.
_SCRIPT = f"""
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import deepy
deepy.enter()
from megatron.neox.errors import InputError
from megatron.neox.launch import door

def run(config):
    rank, what = os.environ["RANK"], os.environ["WHAT"]
    stopped = []
    if what == "save when asked":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.append(1))
    Path(f"rank_{{rank}}.pid").write_text(f"{{os.getpid()}} {{os.getppid()}}")
    if what == "report":
        line = (f"rank {{rank}} of {{os.environ['WORLD_SIZE']}}, {{os.environ['OMP_NUM_THREADS']}} threads, "
                f"micro {{config.training.train_micro_batch_size_per_gpu}}, "
                f"batch {{config.training.train_batch_size}}")
        os.write(1, line.encode() + b"\\n")  # at once, so that the ranks' lines stay whole
    if what == "one meets a mistake" and rank == "1":
        other = Path("rank_0.pid")
        while not (other.is_file() and other.read_text()):
            time.sleep(0.05)
        raise InputError("there is no such thing")
    if what == "all meet a mistake":
        raise InputError("there is no such thing")
    if what == "bug" and rank == "0":
        raise RuntimeError("our bug")
    if what == "save when asked":
        while not stopped:
            time.sleep(0.05)
        time.sleep(1)
        Path(f"rank_{{rank}}.saved").write_text("saved")
        return None
    if what != "report" and what != "all meet a mistake":
        time.sleep(600)

sys.exit(door("script.py", run))
"""

_CONFIG = """
num_layers: 2
hidden_size: 32
num_attention_heads: 4
seq_length: 32
max_position_embeddings: 32
pipe_parallel_size: 2
train_micro_batch_size_per_gpu: 3
gradient_accumulation_steps: 2
"""


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `deepy.py script.py config.yml` in `tmp_path`, and clean up behind it."""
    (tmp_path / "script.py").write_text(_SCRIPT)
    (tmp_path / "config.yml").write_text(_CONFIG)
    started: list[subprocess.Popen[str]] = []

    def begin(what: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "WHAT": what}
        environment.pop("OMP_NUM_THREADS", None)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "deepy.py"), "script.py", "config.yml", *arguments],
            cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def _ranks(folder: Path, process: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """Process id and parent of both ranks, once both are there."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    files = [folder / "rank_0.pid", folder / "rank_1.pid"]
    while not all(file.is_file() and len(file.read_text().split()) == 2 for file in files):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the ranks do not start"
        time.sleep(0.05)
    pids = [[int(number) for number in file.read_text().split()] for file in files]
    return [(pid, parent) for pid, parent in pids]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _all_gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_ranks_share_threads_and_know_their_batch(launch: Callable[..., subprocess.Popen[str]]) -> None:
    process = launch("report")
    out, err = process.communicate(timeout=_TIMEOUT_SECONDS)
    assert process.returncode == 0, err
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert sorted(out.splitlines()) == [
        f"rank 0 of 2, {threads} threads, micro 3, batch 6",
        f"rank 1 of 2, {threads} threads, micro 3, batch 6",
    ]
    assert err == ""


def test_a_mistake_that_all_ranks_meet_is_told_once(launch: Callable[..., subprocess.Popen[str]]) -> None:
    process = launch("all meet a mistake")
    out, err = process.communicate(timeout=_TIMEOUT_SECONDS)
    assert process.returncode == 2
    assert out == ""
    assert err == "InputError\nthere is no such thing\n"


def test_a_mistake_of_one_rank_ends_the_others(
    tmp_path: Path, launch: Callable[..., subprocess.Popen[str]]
) -> None:
    process = launch("one meets a mistake")
    _, err = process.communicate(timeout=_TIMEOUT_SECONDS)
    assert process.returncode == 2
    assert err == "InputError\nthere is no such thing\n"
    pids = [int((tmp_path / f"rank_{rank}.pid").read_text().split()[0]) for rank in (0, 1)]
    assert _all_gone(pids, 1)


def test_a_bug_keeps_its_traceback_and_exits_1(launch: Callable[..., subprocess.Popen[str]]) -> None:
    process = launch("bug")
    _, err = process.communicate(timeout=_TIMEOUT_SECONDS)
    assert process.returncode == 1
    assert "RuntimeError: our bug" in err
    assert err.count("Traceback") == 1


def test_a_wrong_config_starts_nothing(tmp_path: Path, launch: Callable[..., subprocess.Popen[str]]) -> None:
    process = launch("report", "--set", "hidden_size=33")
    out, err = process.communicate(timeout=_TIMEOUT_SECONDS)
    assert process.returncode == 2
    assert out == ""
    assert "hidden_size 33 cannot be divided by num_attention_heads 4; 32 or 36 can" in err
    assert not list(tmp_path.glob("rank_*"))


def test_ranks_that_the_grid_does_not_divide_are_refused(
    launch: Callable[..., subprocess.Popen[str]],
) -> None:
    process = launch("report", "--set", "num_gpus=3")
    _, err = process.communicate(timeout=_TIMEOUT_SECONDS)
    assert process.returncode == 2
    assert "--set: 3 processes (num_gpus)" in err
    assert "a multiple of 2" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_ranks_which_save(
    tmp_path: Path, launch: Callable[..., subprocess.Popen[str]], number: signal.Signals, code: int
) -> None:
    process = launch("save when asked")
    _ranks(tmp_path, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=_TIMEOUT_SECONDS)
    assert process.returncode == code
    assert (tmp_path / "rank_0.saved").is_file()
    assert (tmp_path / "rank_1.saved").is_file()
    assert "Traceback" not in err


def test_a_second_signal_ends_at_once(tmp_path: Path, launch: Callable[..., subprocess.Popen[str]]) -> None:
    process = launch("save when asked")
    ranks = _ranks(tmp_path, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_TIMEOUT_SECONDS)
    assert process.returncode == 130
    assert not (tmp_path / "rank_0.saved").exists()
    assert _all_gone([pid for pid, _ in ranks], 1)


@pytest.mark.parametrize("victim", ["deepy", "runner", "launcher", "rank 0", "rank 1"])
def test_nobody_survives_a_sigkill(
    tmp_path: Path, launch: Callable[..., subprocess.Popen[str]], victim: str
) -> None:
    process = launch("sleep")
    ranks = _ranks(tmp_path, process)
    launcher = ranks[0][1]
    runner = _parent(launcher)
    assert _parent(runner) == process.pid
    pids = {
        "deepy": process.pid, "runner": runner, "launcher": launcher, "rank 0": ranks[0][0], "rank 1": ranks[1][0],
    }  # fmt: skip
    time.sleep(0.3)  # the ranks' watchers are started by then
    os.kill(pids[victim], signal.SIGKILL)
    assert _all_gone([pid for pid, _ in ranks], 2), "a rank survives"
    assert _all_gone([runner, launcher], 10), "a launcher survives"
    if victim != "deepy":
        _, err = process.communicate(timeout=_TIMEOUT_SECONDS)
        assert process.returncode == 1
        assert err.startswith("ResourceError\n")
