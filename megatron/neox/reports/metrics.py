"""A run's metrics.jsonl as curves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.errors import InputError


@dataclass(frozen=True)
class Curve:
    """Values of one quantity over optimizer steps."""

    steps: list[int]
    values: list[float]

    @property
    def last(self) -> float | None:
        """The newest value; none for an empty curve."""
        return self.values[-1] if self.values else None


class Metrics:
    """What one run logged.

    Args:
        path: metrics.jsonl, or the folder that holds it (a config's `save`).

    Raises:
        InputError: there is no such file, it is empty or cannot be read, or a line in it is no logged step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / "metrics.jsonl" if path.is_dir() else path
        if not self.path.is_file():
            raise InputError(f"{self.path} does not exist; give the `save` folder of a training run")
        self.records = list(_records(self.path))
        if not self.records:
            raise InputError(f"{self.path} is empty: the run logged no step (log_interval)")

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin so, in the order in which they were first logged."""
        return list(dict.fromkeys(key for record in self.records for key in record if key.startswith(prefix)))

    def curve(self, key: str) -> Curve:
        """The records that hold `key`, as a curve."""
        held = [record for record in self.records if record.get(key) is not None]
        return Curve([int(record["step"]) for record in held], [float(record[key]) for record in held])


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path} cannot be read: {why}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not a JSON object: {error}") from error
        if not _is_step(record):
            raise InputError(f"{path}:{number}: no logged step: an object with step, and numbers or null")
        yield record


def _is_step(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get("step"), int)
        and all(value is None or isinstance(value, int | float) for value in record.values())
    )
