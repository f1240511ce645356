"""metrics.jsonl in the `save` folder: one JSON object for each logged step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from megatron.neox.files import write_whole
from megatron.neox.plugins import monitors

FILE_NAME = "metrics.jsonl"


@monitors.register("jsonl")
class JsonlMonitor:
    """Append each logged step as a line of metrics.jsonl; always on where there is a save folder.

    A resumed run first drops the lines behind the step it resumes from, so that the file holds one curve.
    Numbers that JSON lacks (NaN, infinity) are written as null.
    """

    def __init__(self, *, folder: Path, first_step: int = 0) -> None:
        self.path = folder / FILE_NAME
        self.first_step = first_step
        self._file: TextIO | None = None

    def start(self, config_keys: Mapping[str, Any]) -> None:
        """Cut the file back to the step the run begins at, and open it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _keep_until(self.path, self.first_step)
        self._file = self.path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write a line, through to the file."""
        assert self._file is not None, "log() before start()"
        record = {"step": step, **{name: _finite(value) for name, value in values.items()}}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()  # a reader sees the step at once, and a killed run loses none

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _keep_until(path: Path, step: int) -> None:
    """Rewrite `path` with its whole lines up to `step`; a line that a killed run left half-written goes."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
    write_whole(path, "".join(f"{line}\n" for line in kept))


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
