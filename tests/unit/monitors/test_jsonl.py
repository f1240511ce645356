from __future__ import annotations

import json
import math
from pathlib import Path

from megatron.neox.monitors.jsonl import JsonlMonitor


def lines(folder: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(folder: Path, steps: range, *, first_step: int = 0) -> None:
    monitor = JsonlMonitor(folder=folder, first_step=first_step)
    monitor.start({})
    for step in steps:
        monitor.log(step, {"loss": 1 / step})
    monitor.close()


def test_a_logged_step_is_a_line(tmp_path: Path) -> None:
    write(tmp_path / "new", range(1, 3))
    assert lines(tmp_path / "new") == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]


def test_a_resumed_run_keeps_one_curve(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    write(tmp_path, range(5, 6), first_step=4)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_fresh_run_starts_the_curve_anew(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    write(tmp_path, range(1, 2))
    assert [line["step"] for line in lines(tmp_path)] == [1]


def test_a_half_written_line_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    write(tmp_path, range(4, 5), first_step=3)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


def test_what_json_has_no_number_for_is_null(tmp_path: Path) -> None:
    monitor = JsonlMonitor(folder=tmp_path)
    monitor.start({})
    monitor.log(1, {"loss": math.nan, "grad_norm": math.inf, "learning_rate": None})
    monitor.close()
    assert lines(tmp_path) == [{"step": 1, "loss": None, "grad_norm": None, "learning_rate": None}]
