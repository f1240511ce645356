"""SIGKILL while a checkpoint is written: the previous one stays whole, `latest` stays true, and the run goes on.

A run of two pipeline stages saves after every step. Its ranks are killed at random instants of a save, and before
and after each of the renames that give files and folders their names; `make chaos` takes a hundred instants and every
operation on the disk. Each kill is followed by a run that resumes from what it left.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed.pipe  # noqa: F401  imported before the ranks are forked, so that they need not
import pytest

import megatron.neox.models.gpt_neox  # noqa: F401
from megatron.neox.config import Config
from megatron.neox.layouts.checkpoint_folder import find_checkpoint
from megatron.neox.layouts.manifest import Manifest
from megatron.neox.layouts.neox import step_of, steps_in
from megatron.neox.plugins import hooks
from megatron.neox.training.hook import Hook, Run
from megatron.neox.training.run import run
from tests.forked_ranks import run_ranks, start_ranks
from tests.integration.training_case import TINY, metrics, write_dataset

pytestmark = pytest.mark.slow

NUM_RANKS = 2
# What audit events are called of the operations that change a folder.
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


@hooks.register("first_save_for_test")
class FirstSave(Hook):
    """Mark beginning and end of this process's first save, and list what rank 0 does on the disk in between.

    Args:
        folder: for the marks, and the list.
        kill_at: kill this process before the operation of this number.
    """

    def __init__(self, *, folder: str, kill_at: int | None = None) -> None:
        self.folder = Path(folder)
        self.kill_at = kill_at
        self.operations: list[str] = []
        self.is_saving = False

    def on_step(self, run: Run, result: Any) -> None:
        if run.engine.grid.is_main and not self.operations and not self.is_saving:
            sys.addaudithook(self._note)
            self.is_saving = True
            (self.folder / "begun").touch()

    def on_checkpoint(self, run: Run, path: Path) -> None:
        if self.is_saving:
            self.is_saving = False
            (self.folder / "operations.json").write_text(json.dumps(self.operations))

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_reading = event == "open" and arguments[1] == "r"
        if not self.is_saving or event not in OPERATIONS or is_reading:
            return
        if len(self.operations) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.operations.append(event)


@dataclass
class Case:
    """A run, and what it must come to."""

    folder: Path
    keys: dict[str, Any]
    digests: dict[int, dict[str, str]]
    """Of the undisturbed run: SHA-256 of each file of tensors, by step."""
    seconds: float
    """How long a save takes."""
    operations: list[str]

    @property
    def save(self) -> Path:
        return self.folder / "run"

    def kill(self, *, after_seconds: float | None = None, at_operation: int | None = None) -> None:
        """Start or resume the run, and kill it while it saves the first time."""
        begun = self.folder / "begun"
        begun.unlink(missing_ok=True)
        # However late the kill comes, there is one save that it can meet.
        keys = self.config(self.save, at_operation) | {"exit_interval": 1}
        ranks, results = start_ranks(NUM_RANKS, train, keys)
        try:
            while after_seconds is not None and not begun.exists():
                assert all(rank.is_alive() for rank in ranks), results.get(timeout=5)
                time.sleep(0.0005)
            if after_seconds is not None:
                time.sleep(after_seconds)
            else:
                ranks[0].join(60)
                # A save after a kill may have less to do, and then comes to its end.
                assert ranks[0].exitcode in (-signal.SIGKILL, 0)
        finally:
            for rank in ranks:
                rank.kill()
            for rank in ranks:
                rank.join()

    def check(self) -> int:
        """All that a reader could meet is whole, and what the undisturbed run wrote; returns the newest step."""
        newest = find_checkpoint(self.save, strict=True)
        assert newest is not None
        assert newest.name == (self.save / "latest").read_text().strip()
        for step, path in steps_in(self.save).items():
            manifest = Manifest.read(path)
            assert manifest.damage(path) == []
            assert digests(path) == self.digests[step]
        step = step_of(newest.name)
        assert step is not None
        return step

    def config(self, save: Path, kill_at: int | None = None) -> dict[str, Any]:
        hook = {"type": "first_save_for_test", "folder": str(self.folder), "kill_at": kill_at}
        return {**self.keys, "save": str(save), "load": str(save), "hooks": [hook]}


def digests(checkpoint: Path) -> dict[str, str]:
    files = Manifest.read(checkpoint).files
    return {name: record.sha256 for name, record in files.items() if name.endswith(".pt")}


def train(keys: dict[str, Any]) -> int:
    return run(Config.from_flat(keys))


def make_case(folder: Path, num_steps: int) -> Case:
    """Let the run go undisturbed, and take note of how long its saves take and what they do."""
    keys = {
        **TINY,
        "data_path": write_dataset(folder / "code_text_document"),
        "pipe_parallel_size": NUM_RANKS,
        "checkpoint_factor": 1,
        "eval_interval": 0,
        "train_iters": num_steps,
    }
    case = Case(folder, keys, {}, 0.0, [])
    undisturbed = folder / "undisturbed"
    assert run_ranks(NUM_RANKS, train, case.config(undisturbed)) == [0] * NUM_RANKS
    case.digests = {step: digests(path) for step, path in steps_in(undisturbed).items()}
    # Saves to come also throw a checkpoint away: theirs are the operations and the time that count.
    case.keys["keep_last_n_checkpoints"] = 2
    (folder / "begun").unlink()
    assert run_ranks(NUM_RANKS, train, case.config(case.save) | {"exit_interval": 3}) == [0] * NUM_RANKS
    assert run_ranks(NUM_RANKS, train, case.config(case.save) | {"exit_interval": 1}) == [0] * NUM_RANKS
    begun, ended = (folder / name for name in ("begun", "operations.json"))
    case.seconds = (ended.stat().st_mtime_ns - begun.stat().st_mtime_ns) / 1e9
    case.operations = json.loads(ended.read_text())
    assert case.check() == 4
    return case


def check_kills(case: Case, instants: list[float], operations: list[int]) -> None:
    """Kill at each instant (as a share of a save's time) and before each operation; then let the run go on."""
    kills: list[dict[str, Any]] = [{"after_seconds": share * case.seconds} for share in instants]
    kills += [{"at_operation": number} for number in operations]
    step = case.check()
    outcomes = set()
    for kill in kills:
        case.kill(**kill)
        before, step = step, case.check()
        assert step in (before, before + 1), kill
        outcomes.add(step - before)
    assert outcomes == {0, 1}, "no kill came before the end, or none after it"
    keys = case.config(case.save) | {"exit_interval": 2}
    assert run_ranks(NUM_RANKS, train, keys) == [0] * NUM_RANKS
    assert case.check() == step + 2
    curves = [metrics(folder)[: step + 2] for folder in (case.save, case.folder / "undisturbed")]
    first, second = ([(line["step"], line["loss"]) for line in curve] for curve in curves)
    assert first == second


def around_renames(operations: list[str]) -> list[int]:
    numbers = [number for number, name in enumerate(operations) if name == "os.rename"]
    return sorted({place for number in numbers for place in (number, number + 1) if place < len(operations)})


def random_instants(count: int) -> list[float]:
    """Shares of a save's time; some come after its end, since not all saves take as long."""
    seed = time.time_ns()
    logging.getLogger(__name__).warning("the instants come from seed %d", seed)  # pytest shows it on failure
    generator = random.Random(seed)
    return [generator.uniform(0, 1.2) for _ in range(count)]


def test_a_killed_save_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    case = make_case(tmp_path, num_steps=24)
    renames = around_renames(case.operations)
    assert case.operations.count("os.rename") == 4, "manifest, folder, latest, and the one thrown away"
    check_kills(case, random_instants(5), renames)


@pytest.mark.chaos
def test_a_hundred_killed_saves_leave_the_previous_checkpoint(tmp_path: Path) -> None:
    case = make_case(tmp_path, num_steps=160)
    check_kills(case, random_instants(100), list(range(len(case.operations))))
