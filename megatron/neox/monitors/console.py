"""The run on the console: a progress bar on a terminal, and one line for each logged step anywhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from megatron.neox.plugins import monitors

log = logging.getLogger(__name__)

# How each value is written; those not named here stay out of the line.
_FORMATS = {
    "loss": "loss {:.4f}",
    "validation_loss": "validation_loss {:.4f}",
    "validation_perplexity": "validation_perplexity {:.2f}",
    "learning_rate": "learning_rate {:.3e}",
    "grad_norm": "grad_norm {:.3f}",
    "loss_scale": "loss_scale {:g}",
    "skipped_steps": "skipped {:g}",
    "tokens_per_second": "tokens/s {:.0f}",
    "model_flops_per_second": "FLOP/s {:.3e}",
    "mfu": "mfu {:.1%}",
}


@monitors.register("console")
class ConsoleMonitor:
    """Print a line such as `step 100/2000 loss 3.1234 ...`; always on."""

    def __init__(self, *, num_steps: int, first_step: int = 0) -> None:
        self.num_steps = num_steps
        self.first_step = first_step
        self._bar: _Bar | None = None

    def start(self, config_keys: Mapping[str, Any]) -> None:
        """Show the bar where stderr is a terminal."""
        if sys.stderr.isatty():
            self._bar = _Bar(self.num_steps, self.first_step)

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Print the line."""
        log.info("%s", describe_step(step, self.num_steps, values))
        if self._bar is not None:
            self._bar.advance(step, values.get("loss"))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def describe_step(step: int, num_steps: int, values: Mapping[str, float | None]) -> str:
    """One line with what a reader looks for first; a value without a number is written `none`."""
    words = [f"step {step}/{num_steps}"]
    for name, form in _FORMATS.items():
        if name == "skipped_steps" and not values.get(name):
            continue
        if name in values:
            value = values[name]
            words.append(form.format(value) if value is not None else f"{form.split()[0]} none")
    return " ".join(words)


class _Bar:
    """Progress bar on stderr; log lines are led through it, so that they appear above it."""

    def __init__(self, num_steps: int, first_step: int) -> None:
        self._stderr = sys.stderr
        columns = (TextColumn("step"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, *times, transient=True, console=Console(stderr=True))
        self._task = self._progress.add_task("", total=num_steps, completed=first_step)
        self._progress.start()
        _move_handlers(self._stderr, sys.stderr)  # rich has replaced sys.stderr while the bar runs

    def advance(self, step: int, loss: float | None) -> None:
        description = "" if loss is None else f"loss {loss:.4f}"
        self._progress.update(self._task, completed=step, description=description)

    def close(self) -> None:
        _move_handlers(sys.stderr, self._stderr)
        self._progress.stop()


def _move_handlers(old: Any, new: Any) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.setStream(new)
