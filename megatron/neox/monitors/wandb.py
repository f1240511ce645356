"""Weights & Biases, online or offline."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.neox.config import LoggingConfig
from megatron.neox.errors import ConfigError, DependencyError
from megatron.neox.files import write_whole
from megatron.neox.plugins import monitors

# The run's identity, kept in the save folder so that a resumed run goes on in the same curve.
RUN_ID_FILE = "wandb_run_id"


@monitors.register("wandb")
class WandbMonitor:
    """Log to Weights & Biases (use_wandb); the key comes from WANDB_API_KEY, WANDB_MODE=offline needs none.

    Raises:
        DependencyError: the package wandb is not installed.
        ConfigError: online, and no key is known.
    """

    def __init__(self, *, section: LoggingConfig, folder: Path | None = None) -> None:
        self.section = section
        self.folder = folder
        self._run: Any = None

    def start(self, config_keys: Mapping[str, Any]) -> None:
        """Open the run, or the one this save folder had before."""
        wandb = _import_wandb()
        _check_key(wandb, self.section.wandb_host)
        self._run = wandb.init(
            project=self.section.wandb_project,
            entity=self.section.wandb_team,
            group=self.section.wandb_group,
            name=self.section.wandb_run_name,
            dir=str(self.folder) if self.folder else None,
            config=dict(config_keys),
            id=self._run_id(),
            resume="allow",
            mode=os.environ.get("WANDB_MODE"),  # wandb itself reads it once, at its import
            settings=wandb.Settings(base_url=self.section.wandb_host, silent=True),
        )

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Send the values."""
        self._run.log({name: value for name, value in values.items() if value is not None}, step=step)

    def close(self) -> None:
        """Send what is left and end the run."""
        if self._run is not None:
            self._run.finish()

    def _run_id(self) -> str:
        if self.folder is None:
            return secrets.token_hex(4)
        path = self.folder / RUN_ID_FILE
        if not path.exists():
            write_whole(path, secrets.token_hex(4))
        return path.read_text().strip()


def _import_wandb() -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise DependencyError(
            "use_wandb needs the package wandb; install it with `pip install wandb`"
        ) from error


def _check_key(wandb: Any, host: str) -> None:
    """Refuse to start where wandb would stop and ask for a key."""
    if os.environ.get("WANDB_MODE", "online") in {"online", "shared"} and not _logged_in(wandb, host):
        raise ConfigError(
            [
                "use_wandb: no key is known; set WANDB_API_KEY (or `wandb login`), or WANDB_MODE=offline to "
                "log on this disk"
            ]
        )


def _logged_in(wandb: Any, host: str) -> bool:
    return bool(os.environ.get("WANDB_API_KEY")) or bool(wandb.login(host=host, prompt=False))
