from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from megatron.neox.errors import OutputError
from megatron.neox.training import run_folder
from megatron.neox.training.run_folder import RunFolder
from tests.forked_ranks import run_ranks

HOLDER = """
import sys, time
from pathlib import Path
import torch
from megatron.neox.training.run_folder import RunFolder
with RunFolder(Path(sys.argv[1]), is_main=True, device=torch.device("cpu")):
    print("held", flush=True)
    time.sleep(60)
"""


def enter(folder: Path) -> None:
    with RunFolder(folder, is_main=True, device=torch.device("cpu")):
        pass


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_has_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.2)
    with hold(tmp_path / "run") as process:
        with pytest.raises(
            OutputError, match=rf"held by another run \(process {process.pid} on .*\); wait for it"
        ):
            enter(tmp_path / "run")
        process.send_signal(signal.SIGKILL)
        process.wait()
    enter(tmp_path / "run")


def test_a_run_waits_a_moment_for_one_that_is_dying(tmp_path: Path) -> None:
    with hold(tmp_path / "run") as process:
        start = time.monotonic()
        killer = threading.Timer(0.5, process.kill)
        killer.start()
        enter(tmp_path / "run")
        assert time.monotonic() - start > 0.4
        killer.join()


def test_a_path_that_can_be_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OutputError, match="run cannot be written: File exists; give another save folder"):
        enter(tmp_path / "run")


def _share(folder: str) -> int:
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group("gloo")
    with RunFolder(Path(folder), is_main=rank == 0, device=torch.device("cpu")):
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return rank


def test_all_ranks_of_a_run_share_the_folder(tmp_path: Path) -> None:
    assert run_ranks(3, _share, str(tmp_path / "run")) == [0, 1, 2]


def _refused(folder: str) -> str:
    run_folder._PATIENCE_SECONDS = 0.2
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group("gloo")
    try:
        with RunFolder(Path(folder), is_main=rank == 0, device=torch.device("cpu")):
            return "held"
    except OutputError as error:
        return str(error)
    finally:
        torch.distributed.destroy_process_group()


def test_every_rank_is_refused(tmp_path: Path) -> None:
    with hold(tmp_path / "run") as process:
        messages = run_ranks(2, _refused, str(tmp_path / "run"))
        process.kill()
    assert len(set(messages)) == 1
    assert f"process {process.pid}" in messages[0]
