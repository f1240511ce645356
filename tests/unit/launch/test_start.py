"""The folder through which a launch's processes tell each other how they are."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path

import pytest

from megatron.neox.launch.start import _launch_folder


def make(parent: Path, name: str, *, age_seconds: float) -> Path:
    folder = parent / f"neox-launch-{name}"
    folder.mkdir()
    (folder / "launcher.lock").touch()
    (folder / "rank_0.start").touch()
    then = time.time() - age_seconds
    os.utime(folder, (then, then))
    return folder


def test_folders_of_killed_launches_are_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, held, young = (
        make(tmp_path, name, age_seconds=age) for name, age in (("a", 60), ("b", 60), ("c", 0))
    )
    with open(held / "launcher.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _launch_folder() as own:
            assert sorted(tmp_path.iterdir()) == sorted([held, young, own])
    assert not killed.exists()
    assert not own.exists()
