"""Configs that checkpoints carry: what generate.py and evaluate.py fall back on."""

from __future__ import annotations

from pathlib import Path

SNAPSHOT = Path("configs") / "config.yml"
"""The merged config inside a checkpoint's folder, `SAVE/global_stepN/configs/config.yml`."""
_LOOKED_IN = ("runs", "checkpoints")


def newest_run() -> Path | None:
    """The snapshot of the newest checkpoint below `runs` and `checkpoints` of the working directory."""
    found = [
        snapshot
        for folder in _LOOKED_IN
        for pattern in ("", "*/", "*/*/")
        for snapshot in Path(folder).glob(f"{pattern}global_step*/{SNAPSHOT}")
    ]
    return max(found, key=lambda snapshot: snapshot.stat().st_mtime, default=None)


def snapshot_of(load: str, iteration: int | None = None) -> Path | None:
    """The snapshot of a checkpoint in the folder `load`: of one step, else of the newest there."""
    folder = Path(load)
    steps = [folder] if folder.name.startswith("global_step") else list(folder.glob("global_step*"))
    if iteration is not None:
        steps = [step for step in steps if step.name == f"global_step{iteration}"]
    found = [step / SNAPSHOT for step in steps if (step / SNAPSHOT).is_file()]
    return max(found, key=_step_number, default=None)


def _step_number(snapshot: Path) -> int:
    number = snapshot.parents[1].name.removeprefix("global_step")
    return int(number) if number.isdigit() else -1
