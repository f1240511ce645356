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


def find_checkpoint(
    folder: Path,
    *,
    iteration: int | None = None,
    strict: bool,
    fallback: bool = False,
    weights_only: bool = False,
) -> Path | None:
    """The checkpoint to load: that of `iteration`, else the one `latest` names, else, without `latest`, the newest.

    Each file's checksum is compared with the manifest, so that what is returned was written whole and has not
    changed since. A folder in GPT-NeoX's layout without any manifest is taken at its word.

    Args:
        folder: holds `latest` and `global_stepN` folders, or is a `global_stepN` folder itself.
        strict: whether a checkpoint must be there; otherwise an absent or empty folder gives none.
        fallback: where the checkpoint is damaged, and was not asked for by `iteration`, take the newest intact one.
        weights_only: whether damage to the optimizer's state does not matter.

    Raises:
        CheckpointError: what was asked for is not there or damaged; names the newest one that is intact.
    """
    if neox.step_of(folder.name) is not None and folder.is_dir() and iteration is None:
        return _whole(folder, weights_only)
    candidates = neox.steps_in(folder) if folder.is_dir() else {}
    chosen = _chosen(folder, candidates, iteration)
    if chosen is None:
        if strict:
            raise CheckpointError(_nothing_there(folder))
        return None
    if chosen in candidates.values():
        problem = _problem(chosen, candidates, weights_only)
    else:
        problem = f"{folder / neox.LATEST} names {_latest(folder) or 'nothing'}, which is missing"
    if problem is None:
        return chosen
    intact = _newest_intact(candidates, chosen, weights_only)
    if intact is not None and fallback and iteration is None:
        log.warning("%s; load_fallback: taking the newest intact checkpoint, %s", problem, intact)
        return intact
    raise CheckpointError(f"{problem}\n  {_offer(folder, intact, asked_for=iteration is not None)}")


def _whole(chosen: Path, weights_only: bool) -> Path:
    """A step's folder that was named itself, if it is intact.

    Raises:
        CheckpointError: it is not; names the newest one beside it that is.
    """
    candidates = neox.steps_in(chosen.parent)
    problem = _problem(chosen, candidates, weights_only)
    if problem is None:
        return chosen
    intact = _newest_intact(candidates, chosen, weights_only)
    offer = "none beside it is intact; give another load folder"
    if intact is not None:
        offer = f"the newest intact checkpoint beside it is {intact.name}: give load: {intact}"
    raise CheckpointError(f"{problem}\n  {offer}")


def _newest_intact(candidates: dict[int, Path], chosen: Path, weights_only: bool) -> Path | None:
    others = (path for path in candidates.values() if path != chosen)
    return next((path for path in others if _problem(path, candidates, weights_only) is None), None)


def damaged_steps(folder: Path, *, after: int) -> list[int]:
    """Steps later than `after` whose checkpoints are damaged, newest first."""
    candidates = neox.steps_in(folder) if folder.is_dir() else {}
    return [
        step
        for step, path in candidates.items()
        if step > after and _problem(path, candidates, False) is not None
    ]


def prune_checkpoints(folder: Path, keep_last: int) -> list[Path]:
    """Remove all but the newest `keep_last` checkpoints, never the one that `latest` names; returns them.

    Those after the one that `latest` names are neither counted nor removed: a run went back behind them, since they
    are damaged as a rule, and must not lose the ones it wrote since to them.
    """
    named = _latest(folder)
    paths = list(neox.steps_in(folder).values())
    names = [path.name for path in paths]
    counted = paths[names.index(named) :] if named in names else paths
    removed = []
    for path in counted[keep_last:]:
        if path.name == named:
            continue
        # Renamed first: what is left of a removal that is cut short must not look like a checkpoint.
        doomed = path.with_suffix(_DOOMED)
        try:
            path.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:  # the checkpoint before it is safe, and the run worth more than the room
            log.warning("cannot remove %s (%s): it takes room until it is removed", path, error.strerror)
        else:
            removed.append(path)
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
    sync_folder(temporary)
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
    except (UnicodeDecodeError, OSError):
        return "what cannot be read"


def _chosen(folder: Path, candidates: dict[int, Path], iteration: int | None) -> Path | None:
    """The checkpoint that is meant, whether it is there or not; none where nothing is said and nothing is there."""
    if iteration is not None:
        if iteration not in candidates:
            listed = ", ".join(map(str, candidates)) or "none"
            raise CheckpointError(f"{folder} holds no step {iteration}; it holds {listed}")
        return candidates[iteration]
    latest = _latest(folder)
    if latest is not None:
        return folder / latest
    newest = next(iter(candidates.values()), None)
    if newest is not None:
        log.warning("%s is missing; taking the newest checkpoint, %s", folder / neox.LATEST, newest)
    return newest


def _problem(path: Path, candidates: dict[int, Path], weights_only: bool) -> str | None:
    """What is wrong with a checkpoint, its name among it; none where it is intact."""
    damage = _damage(path, weights_only)
    if damage is None and any((other / NAME).exists() for other in candidates.values()):
        damage = f"{NAME} is missing, which is written last"
    return f"{path} is damaged: {damage}" if damage else None


def _damage(path: Path, weights_only: bool) -> str | None:
    """What is wrong with a checkpoint: "" for nothing, none for "no telling", since it has no manifest."""
    if not (path / NAME).exists():
        return None if neox.holds_weights(path) else "it holds no layer files"
    try:
        return "; ".join(Manifest.read(path).damage(path, weights_only=weights_only))
    except CheckpointError as error:
        return str(error)


def _offer(folder: Path, intact: Path | None, *, asked_for: bool) -> str:
    if intact is None:
        return f"{folder} holds no intact checkpoint; give another load folder, or remove it to start afresh"
    by_itself = "" if asked_for else "; with load_fallback: true it is taken by itself"
    return (
        f"the newest intact checkpoint is {intact.name}: give --iteration {neox.step_of(intact.name)} to load it"
        + by_itself
    )


def _nothing_there(folder: Path) -> str:
    if not folder.is_dir():
        return f"load: {folder} does not exist; give a folder that holds global_step* folders"
    halves = sorted(path.name for path in folder.glob(f"global_step*{_TEMPORARY}"))
    unfinished = f" ({halves[0]} was not written to its end)" if halves else ""
    inside = neox.checkpoints_below(folder)
    meant = f" (such as {inside[0]})" if inside else ""
    return f"load: {folder} holds no checkpoint{unfinished}; give a folder that holds global_step* folders{meant}"
