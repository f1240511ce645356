"""A folder of checkpoints: which one to load, and which to throw away."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from megatron.neox.errors import CheckpointError
from megatron.neox.files import write_whole
from megatron.neox.layouts import neox
from megatron.neox.layouts.manifest import NAME, Manifest, sync_folder

log = logging.getLogger(__name__)

_TEMPORARY, _ASIDE, _DOOMED = ".tmp", ".replaced", ".removed"


def temporary_folder(final: Path) -> Path:
    """Where a checkpoint is written before it gets its name."""
    return final.with_suffix(_TEMPORARY)


def find_checkpoint(folder: Path, *, iteration: int | None = None, strict: bool) -> Path | None:
    """The checkpoint to load: that of `iteration`, else the one `latest` names, else the newest intact one.

    Each file's checksum is compared with the manifest, so that what is returned was written whole and has not
    changed since. A folder in GPT-NeoX's layout without any manifest is taken at its word.

    Args:
        folder: holds `latest` and `global_stepN` folders, or is a `global_stepN` folder itself.
        strict: whether a checkpoint must be there; otherwise an absent or empty folder gives none.

    Raises:
        CheckpointError: what was asked for is not there, or nothing there is intact.
    """
    if neox.step_of(folder.name) is not None and folder.is_dir() and iteration is None:
        return _checked(folder)
    candidates = neox.steps_in(folder) if folder.is_dir() else {}
    latest = _latest(folder)
    if iteration is not None and (candidates or strict):
        if iteration not in candidates:
            raise CheckpointError(f"{folder} holds no step {iteration}; it holds {_listed(candidates)}")
        return _checked(candidates[iteration])
    if not candidates and latest is None:
        if strict:
            state = "holds no checkpoint" if folder.is_dir() else "does not exist"
            raise CheckpointError(f"load: {folder} {state}; give a folder that holds global_step* folders")
        return None
    return _newest(folder, candidates, latest)


def prune_checkpoints(folder: Path, keep_last: int) -> list[Path]:
    """Remove all but the newest `keep_last` checkpoints, never the one that `latest` names; returns them."""
    named = _latest(folder)
    removed = [path for path in list(neox.steps_in(folder).values())[keep_last:] if path.name != named]
    for path in removed:
        # Renamed first: what is left of a removal that is cut short must not look like a checkpoint.
        doomed = path.with_suffix(_DOOMED)
        path.rename(doomed)
        shutil.rmtree(doomed)
    return removed


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed run left half-written or half-removed; nobody else may be writing the folder.

    A checkpoint that was set aside for a new one of its step, which then did not come, gets its name back.
    """
    for ending in (_ASIDE, _TEMPORARY, _DOOMED):
        for path in folder.glob(f"global_step*{ending}"):
            final = path.with_suffix("")
            if ending == _ASIDE and not final.exists():
                path.rename(final)
            else:
                shutil.rmtree(path)


def publish(temporary: Path, final: Path) -> None:
    """Give a finished checkpoint its name, and let `latest` name it."""
    aside = final.with_suffix(_ASIDE)
    if final.exists():
        final.rename(aside)
    temporary.rename(final)
    sync_folder(final.parent)
    write_whole(final.parent / neox.LATEST, final.name + "\n")
    sync_folder(final.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _latest(folder: Path) -> str | None:
    try:
        return (folder / neox.LATEST).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        return "?"


def _newest(folder: Path, candidates: dict[int, Path], latest: str | None) -> Path:
    """The one that `latest` names, else the newest without damage; every detour is logged."""
    problems: list[str] = []
    if latest is None:
        problems.append(f"{folder / neox.LATEST} is missing")
    elif not (folder / latest).is_dir():
        problems.append(f"{folder / neox.LATEST} names {latest}, which is missing")
    order = sorted(candidates.values(), key=lambda path: path.name != latest)
    for path in order:
        damage = _damage(path)
        if damage is None and any((other / NAME).exists() for other in order):
            damage = f"{NAME} is missing"
        if not damage:
            for problem in problems:
                log.warning("%s", problem)
            if problems:
                log.warning("taking the newest intact checkpoint, %s", path)
            return path
        problems.append(f"{path}: {damage}")
    lines = [f"{folder} holds no intact checkpoint", *(f"  {problem}" for problem in problems)]
    raise CheckpointError("\n".join([*lines, "  give another load folder, or remove it to start afresh"]))


def _checked(path: Path) -> Path:
    if damage := _damage(path):
        raise CheckpointError(f"{path} is damaged: {damage}; take another step or folder")
    return path


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint: "" for nothing, none for "no telling", since it has no manifest."""
    if not (path / NAME).exists():
        return None if neox.layer_numbers(path) else "it holds no layer files"
    try:
        return "; ".join(Manifest.read(path).damage(path))
    except CheckpointError as error:
        return str(error)


def _listed(candidates: dict[int, Path]) -> str:
    return ", ".join(str(step) for step in candidates) or "none"
