"""TensorBoard event files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.neox.errors import ConfigError, DependencyError
from megatron.neox.plugins import monitors

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@monitors.register("tensorboard")
class TensorBoardMonitor:
    """Write event files for TensorBoard into `folder`: tensorboard_dir, else the save folder.

    Raises:
        DependencyError: the package tensorboard is not installed.
        ConfigError: there is no folder to write to.
    """

    def __init__(self, *, folder: str | Path | None, first_step: int = 0) -> None:
        if folder is None:
            raise ConfigError(["monitor tensorboard: give tensorboard_dir, for there is no save folder"])
        self.folder = str(folder)
        self.first_step = first_step
        self._writer: SummaryWriter | None = None

    def start(self, config_keys: Mapping[str, Any]) -> None:
        """Open the event file and write the config into it."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise DependencyError(
                "tensorboard_dir needs the package tensorboard; install it with "
                "`pip install -r requirements/requirements-tensorboard.txt`"
            ) from error
        # Events of an earlier process behind the resumed step are hidden by TensorBoard.
        self._writer = SummaryWriter(self.folder, purge_step=self.first_step + 1)
        self._writer.add_text(
            "config", f"```json\n{json.dumps(dict(config_keys), indent=2, default=str)}\n```"
        )

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write one scalar a value."""
        assert self._writer is not None, "log() before start()"
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            self._writer.close()
