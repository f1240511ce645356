"""Files written by torch.save, read without running anything that stands in them."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from megatron.neox.errors import CheckpointError

# What reading a damaged file may end in: the archive, the pickle and each value in it have readers of their own.
_DAMAGE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    ArithmeticError, pickle.UnpicklingError,
)  # fmt: skip

# How torch's reader words it that a pickle names something it may not call.
_REFUSED = re.compile(r"GLOBAL (\S+)|unrecognized function (\S+)")

# What numpy.random.get_state() pickles as: an array of 32-bit words. None of these runs anything of a file's choosing.
_rebuild_array = numpy.empty(0).__reduce__()[0]
_RANDOM_STATE: list[Any] = [
    numpy.ndarray,
    numpy.dtype,
    type(numpy.dtype(numpy.uint32)),
    _rebuild_array,
    (_rebuild_array, "numpy.core.multiarray._reconstruct"),  # its name before numpy 2
]


def read_file(path: Path, *, random_state: bool = False) -> dict[str, Any]:
    """The dictionary in a file; its tensors are mapped into memory, on the CPU.

    Files from before PyTorch 1.6, which are no archives, are read whole.

    Args:
        random_state: let the file hold numpy's random state besides tensors and plain values.

    Raises:
        CheckpointError: the file is absent, damaged, or holds something other than named values. One that wants
            to call a function is refused by the name of the function, before anything of it is called.
    """
    try:
        with (
            torch.serialization.safe_globals(_RANDOM_STATE if random_state else []),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is an error
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; the checkpoint is not whole") from None
    except _DAMAGE as error:
        raise CheckpointError(_in_words(path, error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__} instead of named tensors")
    return content


def check_weight(path: Path, name: object, tensor: Tensor) -> None:
    """Refuse a tensor that no layer can compute with as it stands.

    Integers are what quantised weights look like without their scales; taken for weights they give noise, silently.

    Raises:
        CheckpointError: it has no name, or is not dense, not there in full, or not of real numbers.
    """
    fault = None
    if not isinstance(name, str):
        fault = "has a number for a name"
    elif tensor.layout != torch.strided or tensor.device.type != "cpu":
        fault = f"holds no values of its own ({tensor.layout}, {tensor.device})".replace("torch.", "")
    elif not tensor.is_floating_point():
        fault = f"is of type {tensor.dtype}, and weights are floating-point numbers".replace("torch.", "")
    if fault is not None:
        raise CheckpointError(f"{path}: {name} {fault}; take the checkpoint that it was made of")


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _in_words(path: Path, error: Exception) -> str:
    refused = _REFUSED.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if refused is not None:
        return (
            f"{path} wants to call {refused[1] or refused[2]}, which is no part of a tensor, and was not opened; "
            "a file that runs code is no checkpoint: take it from a place you trust"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # torch begins with advice to load the file unsafely, which is nothing to pass on.
    reason = lines[0] if lines and not lines[0].startswith("Weights only") else type(error).__name__
    return f"{path} cannot be read ({reason}); take another checkpoint"
