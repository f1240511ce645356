"""The folder that a stage writes: made ready for a run, refused to one that is another's, emptied."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from megatron.neox.corpus.stages.folders import lock_folder
from megatron.neox.corpus.stages.slurm_jobs import refuse_queued
from megatron.neox.corpus.stages.stage import SUMMARY, Stage
from megatron.neox.errors import NO_SPACE, OutputError
from megatron.neox.files import write_whole

log = logging.getLogger(__name__)


def remove(stage: Stage) -> None:
    """Leave nothing of a stage that came to nothing."""
    _clear(stage)
    with suppress(OSError):  # a link to the folder, or a mount point, stays
        stage.output.rmdir()


@contextmanager
def opened(stage: Stage, *, resume: bool, overwrite: bool) -> Iterator[dict[str, Any] | None]:
    """The output made ready, locked against a second run; gives the summary where the stage is finished already.

    Raises:
        OutputError: as `run_stage`; or jobs of it are in Slurm's queue.
        InputError: squeue cannot tell whether they are.
    """
    output = stage.output
    refuse_replacing(output, stage.inputs)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in NO_SPACE:  # no other name helps
            raise
        raise OutputError(f"cannot write {output}: {error.strerror}; give another {stage.option}") from error
    with lock_folder(output, stage.option):
        if stage.state.exists():
            refuse_queued(output)
        finished = _prepare(stage, resume=resume, overwrite=overwrite)
        if finished is not None:
            log.info("%s is finished already", output)
        yield finished


def refuse_replacing(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output that is an input, or holds one: overwriting it would cost what is to be read.

    Raises:
        OutputError: as it says.
    """
    for path in inputs:
        if path.resolve().is_relative_to(output.resolve()):
            raise OutputError(
                f"the output {output} {'is' if path.resolve() == output.resolve() else 'holds'} the input {path}, "
                "which would be lost; give another --output"
            )


def _prepare(stage: Stage, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    output, summary, settings = stage.output, stage.output / SUMMARY, stage.state / "settings.json"
    if any(output.iterdir()) and not (summary.exists() or stage.state.exists()):
        raise OutputError(f"{output} holds something that no stage wrote; give another {stage.option}")
    if overwrite:
        _clear(stage)
    elif any(output.iterdir()) and not resume:
        found = "is there" if summary.exists() else "holds a run that was not finished"
        raise OutputError(f"{output} {found}; --resume goes on with it, --overwrite begins anew")
    if summary.exists():
        content = json.loads(summary.read_text("utf-8"))
        _refuse_other_settings(stage, content["settings"])
        shutil.rmtree(stage.state, ignore_errors=True)
        return content
    if settings.exists():
        _refuse_other_settings(stage, json.loads(settings.read_text("utf-8")))
        stage.check_inputs()
    for folder in (stage.state / "done", stage.work):
        folder.mkdir(parents=True, exist_ok=True)
    write_whole(settings, json.dumps(dict(stage.settings), indent=2))
    return None


def _clear(stage: Stage) -> None:
    """Empty the output; what says "finished" goes first, and what says "ours" last, so that a kill costs nothing."""
    stage.state.mkdir(exist_ok=True)
    (stage.output / SUMMARY).unlink(missing_ok=True)
    for entry in stage.output.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        elif entry != stage.state:
            shutil.rmtree(entry)
    shutil.rmtree(stage.state)


def _refuse_other_settings(stage: Stage, found: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(dict(stage.settings)))
    different = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    if different:
        told = "; ".join(_difference(stage, key, found.get(key), wanted.get(key)) for key in different)
        raise OutputError(
            f"{stage.output} was begun with other settings: {told}; give those again, --overwrite it, "
            f"or give another {stage.option}"
        )


def _difference(stage: Stage, key: str, was: Any, is_now: Any) -> str:
    """In words; of lists as long, the first place where they differ, for they may name thousands of files."""
    if key == "input" and stage.inputs:  # hashes tell nobody anything
        return f"the input {stage.inputs[0]} is another than it was, or changed since"
    if isinstance(was, list) and isinstance(is_now, list) and len(was) == len(is_now):
        was, is_now = next(pair for pair in zip(was, is_now) if pair[0] != pair[1])
    return f"{key} was {was!r} and is {is_now!r}"
