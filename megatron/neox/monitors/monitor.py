"""What a monitor is, and how a run's monitors are started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from megatron.neox.config import LoggingConfig
from megatron.neox.plugins import monitors


class Monitor(Protocol):
    """Takes a run's numbers, on rank 0.

    A plugin is built with its YAML options and those it names of: `folder` (the `save` folder, or None),
    `first_step` (the step the run begins at, above 0 when it is resumed), `num_steps` (the step it ends at)
    and `section` (the logging section of the config).
    """

    def start(self, config_keys: Mapping[str, Any]) -> None:
        """Called once, before the first step, with the YAML keys of the run."""
        ...

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Take the values of a step; None where there is no number (a gradient norm of a skipped step)."""
        ...

    def close(self) -> None:
        """Called once, also when the run failed; the monitor writes out what it holds."""
        ...


def start_monitors(
    section: LoggingConfig,
    *,
    folder: Path | None,
    first_step: int,
    num_steps: int,
    config_keys: Mapping[str, Any],
) -> list[Monitor]:
    """Build and start the monitors of a run; those already started are closed again when one fails.

    Raises:
        UnknownPartError: YAML names a monitor that nothing registered.
        DependencyError: a monitor's package is not installed.
    """
    always: list[tuple[str, dict[str, Any]]] = [("console", {}), *([("jsonl", {})] if folder else [])]
    chosen = [*always, *(choice for choice in section.choices if choice not in always)]
    started: list[Monitor] = []
    try:
        for name, options in chosen:
            monitor: Monitor = monitors.build(
                name,
                options=options,
                folder=folder,
                first_step=first_step,
                num_steps=num_steps,
                section=section,
            )
            started.append(monitor)
            monitor.start(config_keys)
    except BaseException:
        close_monitors(started)
        raise
    return started


def close_monitors(started: Iterable[Monitor]) -> None:
    """Close monitors, the last started first."""
    for monitor in reversed(list(started)):
        monitor.close()
