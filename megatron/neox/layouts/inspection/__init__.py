"""What a checkpoint or a model file holds, found without building a model.

Tensors are read one by one from mapped files, and what is damaged is told of, file by file, instead of ending the
inspection.
"""

from __future__ import annotations

from pathlib import Path

from megatron.neox.errors import InputError
from megatron.neox.layouts import neox
from megatron.neox.layouts.inspection.checkpoints import inspect_checkpoints, inspect_step
from megatron.neox.layouts.inspection.formats import inspect_ctranslate2, inspect_file, inspect_hugging_face
from megatron.neox.layouts.inspection.report import Inspection, TensorRecord

__all__ = ["Inspection", "TensorRecord", "inspect_model"]


def inspect_model(path: Path, *, iteration: int | None = None, verify: bool = False) -> Inspection:
    """Look at a folder of checkpoints, a step's folder, a Hugging Face folder, or a file of weights.

    Args:
        iteration: step to look at, of a folder of checkpoints; none means what `latest` names, or the newest.
        verify: read every byte: compare checksums where there are any, and look for values that are not finite.

    Raises:
        InputError: there is nothing of a known kind.
        CheckpointError: the step is not there.
        DependencyError: a package that reads the format is not installed.
    """
    if iteration is not None and not (path.is_dir() and neox.steps_in(path)):
        raise InputError(f"--iteration: {path} is no folder of checkpoints (global_stepN)")
    if path.is_dir():
        found = _folder(path, iteration, verify)
    elif path.is_file():
        found = inspect_file(path, verify)
    else:
        raise InputError(f"no file or folder {path}")
    found.damage = list(dict.fromkeys(found.damage))
    return found


def _folder(path: Path, iteration: int | None, verify: bool) -> Inspection:
    if neox.step_of(path.name) is not None or neox.holds_weights(path):
        return inspect_step(path, verify)
    if steps := neox.steps_in(path):
        return inspect_checkpoints(path, steps, iteration, verify)
    if (path / "model.bin").is_file():
        return inspect_ctranslate2(path)
    if (path / "config.json").is_file() or any(path.glob("*.safetensors")):
        return inspect_hugging_face(path, verify)
    halves = ", ".join(sorted(half.name for half in path.glob("global_step*.tmp")))
    deeper = next(iter(neox.checkpoints_below(path)), None)
    raise InputError(
        f"{path} holds no global_stepN folder, no layer files, no config.json and no .safetensors"
        + (f", but what a killed run left behind: {halves}" if halves else "")
        + (f"; give the folder below it that does, such as {deeper}" if deeper else "")
    )
