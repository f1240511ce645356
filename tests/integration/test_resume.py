"""Runs that are killed, stopped and started again: they end where an undisturbed run ends, bit for bit."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.training_case import command, environment, metrics, train, write_config, write_dataset

pytestmark = pytest.mark.slow

NUM_STEPS = 30

# Steps take a while, so that there is a moment to kill in; and step 2 waits while the file HOLD exists.
PACE = """
import time
from collections.abc import Iterator
from pathlib import Path

from megatron.neox.plugins import hooks
from megatron.neox.training.hook import Hook


@hooks.register("pace_for_test")
class Pace(Hook):
    '''Slow the loop down.'''

    def __init__(self, *, hold: str) -> None:
        self.hold = Path(hold)

    def on_step(self, run, result):
        time.sleep(0.05)
        while run.step == 2 and self.hold.exists():
            time.sleep(0.05)
"""


class Case:
    """A run on two ranks with dropout, in a folder of its own."""

    def __init__(self, folder: Path, data: str) -> None:
        folder.mkdir(exist_ok=True)
        self.save = folder / "run"
        self.hold = folder / "hold"
        self.started: list[subprocess.Popen[str]] = []
        plugin = folder / "pace.py"
        plugin.write_text(PACE)
        self.config = write_config(
            folder / "tiny.yml",
            data_path=data,
            num_gpus=2,
            train_iters=NUM_STEPS,
            eval_interval=10,
            checkpoint_factor=4,
            save=str(self.save),
            load=str(self.save),
            plugins=[str(plugin)],
            hooks=[{"type": "pace_for_test", "hold": str(self.hold)}],
        )

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(self.config),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.started.append(process)
        return process

    def wait_for_step(self, process: subprocess.Popen[str], step: int) -> None:
        deadline = time.monotonic() + 240
        while not any(line["step"] >= step for line in metrics(self.save)):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, f"step {step} was not reached"
            time.sleep(0.02)

    def last_step(self) -> int:
        lines = metrics(self.save)
        return lines[-1]["step"] if lines else 0

    def files(self) -> dict[str, Any]:
        """Checksums of all weights and optimizer states of the last checkpoint."""
        files = json.loads((self.save / f"global_step{NUM_STEPS}" / "manifest.json").read_text())["files"]
        return {name: record for name, record in files.items() if name.endswith(".pt")}

    def curve(self) -> list[tuple[int, float, float | None]]:
        return [(line["step"], line["loss"], line.get("validation_loss")) for line in metrics(self.save)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "code_text_document")


@pytest.fixture(scope="module")
def undisturbed(data: str, tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = Case(tmp_path_factory.mktemp("undisturbed"), data)
    done = train(case.config)
    assert done.returncode == 0, done.stderr
    return case


@pytest.fixture
def case(data: str, tmp_path: Path) -> Iterator[Case]:
    """A run whose processes do not outlive a failed test."""
    case = Case(tmp_path, data)
    yield case
    for process in case.started:
        process.kill()
        process.communicate()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The launcher and all that it started."""
    launcher = psutil.Process(process.pid)
    return [launcher, *launcher.children(recursive=True)]


def kill_one(process: subprocess.Popen[str], kind: str) -> list[psutil.Process]:
    """SIGKILL the `launcher`, DeepSpeed's `runner`, or one `rank`; returns all that ran."""
    everyone = family(process)
    lines = {member: " ".join(member.cmdline()) for member in everyone}
    chosen = {
        "launcher": everyone[:1],
        "runner": [member for member, line in lines.items() if "deepspeed.launcher" in line],
        "rank": [
            m for m, line in lines.items() if "--megatron_config" in line and "deepspeed.launcher" not in line
        ],
    }[kind]
    random.choice(chosen).kill()
    return everyone


def wait_until_gone(everyone: list[psutil.Process], process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(everyone, timeout=15)
    assert not [member for member in alive if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]


def test_killed_and_stopped_runs_end_like_an_undisturbed_one(undisturbed: Case, case: Case) -> None:
    seed = time.time_ns()
    random.seed(seed)
    logging.getLogger(__name__).warning("the moments come from seed %d", seed)  # pytest shows it on failure
    for kind in ("rank", "runner", "launcher"):
        process = case.start()
        case.wait_for_step(process, min(case.last_step() + random.randint(1, 6), NUM_STEPS - 5))
        time.sleep(random.uniform(0, 0.1))
        wait_until_gone(kill_one(process, kind), process)
        assert process.returncode != 0
    process = case.start()
    case.wait_for_step(process, NUM_STEPS - 3)
    everyone = family(process)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 143, printed
    assert "SIGTERM: the run stops after step" in printed
    assert "Traceback" not in printed
    psutil.wait_procs(everyone, timeout=15)
    stopped = case.last_step()
    assert (case.save / "latest").read_text().strip() == f"global_step{stopped}"
    assert NUM_STEPS - 3 <= stopped < NUM_STEPS
    done = train(case.config)
    assert done.returncode == 0, done.stderr
    assert f"resumed from {case.save}/global_step{stopped}" in done.stderr
    assert case.files() == undisturbed.files()
    assert case.curve() == undisturbed.curve()


@pytest.mark.long
def test_a_folder_that_a_run_holds_is_refused_to_a_second(case: Case) -> None:
    case.hold.touch()
    first = case.start()
    case.wait_for_step(first, 1)
    ranks = [str(member.pid) for member in family(first)]
    second = train(case.config)
    assert second.returncode == 2
    assert second.stderr.count("is held by another run (process ") == 1
    assert any(f"(process {pid} on" in second.stderr for pid in ranks)
    assert "Traceback" not in second.stderr
    first.send_signal(signal.SIGINT)
    case.hold.unlink()
    _, printed = first.communicate(timeout=60)
    assert first.returncode == 130, printed
    assert (case.save / "latest").read_text().strip() == f"global_step{case.last_step()}"
