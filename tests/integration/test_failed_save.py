"""A disk that is full, a file that grows too large, a folder that becomes read-only: the run ends, and says why.

What was saved before stays whole, `latest` names it, nothing half-written is left, and the next run goes on from it.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import deepspeed.pipe  # noqa: F401  imported before the ranks are forked, so that they need not
import pytest

import megatron.neox.models.gpt_neox  # noqa: F401
from megatron.neox.config import Config
from megatron.neox.errors import NeoXError
from megatron.neox.layouts.checkpoint_folder import find_checkpoint
from megatron.neox.layouts.manifest import Manifest
from megatron.neox.plugins import hooks
from megatron.neox.training.hook import Hook, Run
from megatron.neox.training.run import run
from tests.forked_ranks import run_ranks
from tests.integration.training_case import ROOT, TINY, environment, write_config, write_dataset

NOBODY = 65534


@hooks.register("spoil_for_test")
class Spoil(Hook):
    """At step 3 of a run, make writing impossible in the given way."""

    def __init__(self, *, how: str, folder: str) -> None:
        self.how = how
        self.folder = Path(folder)

    def on_step(self, run: Run, result: Any) -> None:
        if run.step == 3:
            spoil(self.how, self.folder)


def spoil(how: str, folder: Path) -> None:
    if how == "small files":
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    elif how == "read-only":
        folder.chmod(0o500)
        if os.geteuid() == 0:  # who may write everywhere
            os.seteuid(NOBODY)


def train(keys: dict[str, Any]) -> tuple[int, str]:
    try:
        return run(Config.from_flat(keys)), ""
    except NeoXError as error:
        return error.exit_code, f"{type(error).__name__}: {error}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "code_text_document")


def keys_of(data: str, save: Path, **keys: Any) -> dict[str, Any]:
    run_keys = {"train_iters": 4, "checkpoint_factor": 2, "eval_interval": 0, "pipe_parallel_size": 2}
    return {**TINY, **run_keys, "data_path": data, "save": str(save), "load": str(save), **keys}


def tensors(save: Path, step: int) -> dict[str, Any]:
    files = Manifest.read(save / f"global_step{step}").files
    return {name: record for name, record in files.items() if name.endswith(".pt")}


@pytest.mark.parametrize(
    ("how", "reason"),
    [("small files", "[Errno 27] File too large"), ("read-only", "[Errno 13] Permission denied")],
)
def test_a_save_that_fails_leaves_the_previous_checkpoint(
    data: str, tmp_path: Path, how: str, reason: str
) -> None:
    save, straight = tmp_path / "run", tmp_path / "straight"
    assert run_ranks(2, train, keys_of(data, straight)) == [(0, "")] * 2
    hook = {"type": "spoil_for_test", "how": how, "folder": str(save)}
    for code, error in run_ranks(2, train, keys_of(data, save, hooks=[hook])):
        assert code == 1
        assert error.startswith(
            f"ResourceError: the checkpoint {save / 'global_step4'} could not be written: "
        )
        assert reason in error
        assert "started again, the run goes on from its newest checkpoint" in error
    save.chmod(0o700)
    assert sorted(path.name for path in save.iterdir()) == [
        ".lock",
        "global_step2",
        "latest",
        "metrics.jsonl",
    ]
    assert find_checkpoint(save, strict=True) == save / "global_step2"
    assert run_ranks(2, train, keys_of(data, save)) == [(0, "")] * 2
    assert tensors(save, 4) == tensors(straight, 4)


def start_in_a_read_only_folder(keys: dict[str, Any], folder: Path) -> tuple[int, str]:
    spoil("read-only", folder)
    return train(keys)


def test_a_run_does_not_begin_in_a_folder_that_it_cannot_write(data: str) -> None:
    # Not below pytest's own folder, which belongs to one user alone.
    folder = Path(os.path.realpath("/tmp")) / f"neox-read-only-{os.getpid()}"
    folder.mkdir()
    try:
        folder.chmod(0o755)
        (folder / ".lock").touch()
        (folder / ".lock").chmod(0o666)
        told = run_ranks(1, start_in_a_read_only_folder, keys_of(data, folder, pipe_parallel_size=1), folder)
        assert told == [
            (
                2,
                f"OutputError: the save folder {folder} cannot be written: Permission denied; give another save folder",
            )
        ]
    finally:
        shutil.rmtree(folder)


# A private disk of 1 MB, on which one checkpoint fits and a second does not; shows what is left on it.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=1m tmpfs "$1" || exit 99
"$2" "$3" train.py "$4"
code=$?
cd "$1" && find . -maxdepth 1 | sort && cat latest
exit $code
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_previous_checkpoint(data: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    config = write_config(tmp_path / "tiny.yml", **keys_of(data, disk, pipe_parallel_size=0))
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh"]
    done = subprocess.run(
        [*private, str(disk), sys.executable, str(ROOT / "deepy.py"), str(config)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
        check=False,
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"this machine gives no user a disk of its own: {done.stderr}")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"the checkpoint {disk / 'global_step4'} could not be written: " in done.stderr
    assert "No space left on device" in done.stderr
    assert done.stdout.split() == [
        ".",
        "./.lock",
        "./global_step2",
        "./latest",
        "./metrics.jsonl",
        "global_step2",
    ]
