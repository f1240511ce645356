"""Files of torch.save: what is read, what is refused, and that nothing in them is run."""

from __future__ import annotations

import os
import random
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.torch_files import read_file

TENSORS = OrderedDict({"norm.weight": torch.arange(4.0), "norm.bias": torch.zeros(4, dtype=torch.float16)})


class Trap:
    """Pickles as a call that creates a file."""

    def __init__(self, function: Any, argument: Any) -> None:
        self.call = (function, (argument,))

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("is_archive", [True, False], ids=["today", "before torch 1.6"])
def test_tensors_of_any_age_are_read(tmp_path: Path, is_archive: bool) -> None:
    torch.save(TENSORS, tmp_path / "a.pt", _use_new_zipfile_serialization=is_archive)
    content = read_file(tmp_path / "a.pt")
    assert list(content) == list(TENSORS)
    assert torch.equal(content["norm.weight"], torch.arange(4.0))
    assert content["norm.bias"].dtype == torch.float16


@pytest.mark.parametrize("is_archive", [True, False], ids=["today", "before torch 1.6"])
@pytest.mark.parametrize("random_state", [False, True])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        # A pickle names functions as Python 2 did: modules are other ones for some.
        (lambda path: Trap(os.system, f"touch {path}"), "posix.system"),
        (lambda path: Trap(eval, f"open({str(path)!r}, 'w').close()"), "eval"),
        (lambda path: Trap(subprocess.check_call, ["touch", str(path)]), "check_call"),
        (lambda path: Trap(Path.touch, path), "getattr"),
    ],
    ids=["system", "eval", "subprocess", "pathlib"],
)
def test_a_file_that_wants_to_run_code_is_refused_by_name(
    tmp_path: Path, make: Any, name: str, random_state: bool, is_archive: bool
) -> None:
    created = tmp_path / "created"
    trap = tmp_path / "layer_02-model_00-model_states.pt"
    torch.save({**TENSORS, "trap": make(created)}, trap, _use_new_zipfile_serialization=is_archive)
    with pytest.raises(CheckpointError) as caught:
        read_file(trap, random_state=random_state)
    assert f"{trap} wants to call " in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not created.exists()
    # The trap is a real one: Python's own reader springs it.
    torch.load(trap, weights_only=False)
    assert created.exists()


def test_random_states_are_read_only_where_they_are_expected(tmp_path: Path) -> None:
    path = tmp_path / "mp_rank_00_model_states.pt"
    state = numpy.random.RandomState(1234).get_state()
    torch.save({"np_rng_state": state, "random_rng_state": random.getstate(), "iteration": 5}, path)
    content = read_file(path, random_state=True)
    assert content["iteration"] == 5
    assert content["np_rng_state"][0] == "MT19937"
    assert numpy.array_equal(content["np_rng_state"][1], state[1])
    assert content["random_rng_state"] == random.getstate()
    with pytest.raises(CheckpointError, match=r"wants to call numpy\S*_reconstruct"):
        read_file(path)


def test_arrays_of_objects_are_not_random_states(tmp_path: Path) -> None:
    torch.save({"state": numpy.array([{"a": 1}], dtype=object)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError):
        read_file(tmp_path / "a.pt", random_state=True)


@pytest.mark.parametrize("kept", [0, 3, 300])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.pt"
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read .*; take another checkpoint"):
        read_file(path)


def test_something_other_than_named_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="holds a list instead of named tensors"):
        read_file(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"b\.pt is missing"):
        read_file(tmp_path / "b.pt")
