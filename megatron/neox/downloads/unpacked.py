"""The files of an unpacked checkpoint find their place beside what is there already.

Weights come last: a folder `global_stepN` under its name means that all else of its archive has its place too, and a
run that was stopped on the way leaves something to go on with.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from megatron.neox.errors import InputError, OutputError

log = logging.getLogger(__name__)


def root_of(
    unpacked: Path, found: Callable[[Path], object] | None = None, sought: str = "folder global_stepN"
) -> Path:
    """The folder in which something is found: `unpacked` itself, or one that the archive put around everything.

    Args:
        found: tells whether a folder is it; the one that holds global_stepN where nothing else is asked for.
        sought: what is looked for, for the message.

    Raises:
        InputError: there is none.
    """
    folder = unpacked
    while not (found or _steps)(folder):
        inside = sorted(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            held = ", ".join(path.name for path in inside[:5]) or "nothing"
            raise InputError(f"the archive holds no {sought}; it holds {held}")
        folder = inside[0]
    return folder


def settle(unpacked: Path, output: Path) -> None:
    """Move everything below the root of `unpacked` into `output`; what exists there is never replaced.

    Raises:
        OutputError: weights of the same step are there.
    """
    root = root_of(unpacked)
    steps = _steps(root)
    if taken := [step.name for step in steps if os.path.lexists(output / step.name)]:
        raise OutputError(
            f"{output / taken[0]} is there already; move it away, or give another --output\n"
            f"  what was unpacked waits in {unpacked}"
        )
    for path in sorted(root.rglob("*")):
        if path.is_file() and not any(path.is_relative_to(step) for step in steps):
            _move(path, output / path.relative_to(root))
    for step in steps:
        os.rename(step, output / step.name)
    shutil.rmtree(unpacked)


def _move(path: Path, target: Path) -> None:
    if os.path.lexists(target):
        if not target.is_file() or target.read_bytes() != path.read_bytes():
            log.warning("kept %s as it is; the archive's differs", target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(path, target)


def _steps(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("global_step*")) if path.is_dir()]
