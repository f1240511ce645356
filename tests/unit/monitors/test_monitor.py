from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.config import LoggingConfig
from megatron.neox.errors import ConfigError, DependencyError, UnknownPartError
from megatron.neox.monitors import close_monitors, start_monitors
from megatron.neox.monitors.wandb import WandbMonitor
from megatron.neox.plugins import monitors

events: list[str] = []


@monitors.register("recorder_for_test")
class Recorder:
    """Note what is called."""

    def __init__(self, *, label: str, num_steps: int) -> None:
        self.label = f"{label}{num_steps}"

    def start(self, config_keys: Mapping[str, Any]) -> None:
        events.append(f"{self.label} start {config_keys['seed']}")

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        events.append(f"{self.label} {step} {values}")

    def close(self) -> None:
        events.append(f"{self.label} close")


def start(folder: Path | None, **keys: Any) -> list[Any]:
    section = LoggingConfig.model_validate(keys)
    return start_monitors(section, folder=folder, first_step=0, num_steps=10, config_keys={"seed": 7})


def test_console_always_and_jsonl_where_there_is_a_folder(tmp_path: Path) -> None:
    started = start(tmp_path)
    assert [type(monitor).__name__ for monitor in started] == ["ConsoleMonitor", "JsonlMonitor"]
    close_monitors(started)
    assert [type(monitor).__name__ for monitor in start(None)] == ["ConsoleMonitor"]


def test_a_chosen_monitor_gets_its_options_and_the_run(tmp_path: Path) -> None:
    events.clear()
    started = start(None, monitors=[{"type": "recorder_for_test", "label": "a"}])
    started[-1].log(3, {"loss": 1.0})
    close_monitors(started)
    assert events == ["a10 start 7", "a10 3 {'loss': 1.0}", "a10 close"]


def test_when_one_cannot_start_the_others_are_closed(tmp_path: Path) -> None:
    events.clear()
    chosen = [{"type": "recorder_for_test", "label": "a"}, "recorder_for_tests"]
    with pytest.raises(UnknownPartError, match="did you mean recorder_for_test"):
        start(None, monitors=chosen)
    assert events == ["a10 start 7", "a10 close"]


def test_tensorboard_writes_event_files(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    started = start(None, tensorboard_dir=str(tmp_path / "board"))
    started[-1].log(1, {"loss": 2.5, "grad_norm": None})
    close_monitors(started)
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.5)]


def test_tensorboard_without_its_package_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DependencyError, match=r"pip install -r requirements/requirements-tensorboard\.txt"):
        start(None, tensorboard_dir=str(tmp_path))


def test_tensorboard_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="give tensorboard_dir"):
        start(None, monitors=["tensorboard"])


def test_wandb_without_its_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DependencyError, match="pip install wandb"):
        start(None, use_wandb=True)


def test_wandb_does_not_ask_for_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match="WANDB_MODE=offline"):
        start(tmp_path, use_wandb=True)


def test_wandb_offline_writes_a_run_and_keeps_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for step in (1, 2):
        monitor = WandbMonitor(section=LoggingConfig(wandb_project="test"), folder=tmp_path)
        monitor.start({"seed": 7})
        monitor.log(step, {"loss": 2.5, "grad_norm": None})
        monitor.close()
    runs = list(tmp_path.glob("wandb/offline-run-*"))
    identity = (tmp_path / "wandb_run_id").read_text()
    assert len(runs) >= 1
    assert all(f"-{identity}" in run.name for run in runs), runs  # in one second wandb appends a number
    assert json.dumps(identity)
