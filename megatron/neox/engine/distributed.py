"""What a rank owes its surroundings: it dies with its launcher, and only rank 0 writes to the console.

Standard library only: a rank calls this before torch is imported.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import signal
import sys
import threading
from pathlib import Path

LAUNCH_FOLDER = "NEOX_LAUNCH_FOLDER"
"""Environment variable: the folder in which this launch's processes tell each other how they are."""
LOCK = "launcher.lock"
"""File in that folder that the launcher holds locked as long as it lives."""

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def die_with_launcher() -> None:
    """Have the kernel end this process when its parent, or the launcher at the top, dies in whatever way.

    DeepSpeed's launcher leaves its ranks running when it is killed, and they would go on writing the save folder.
    The direct parent is watched by a parent-death signal. deepy.py is watched through a lock that the kernel
    releases with the process. Neither is there on another node, where the launcher's connection ends the ranks.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    folder = os.environ.get(LAUNCH_FOLDER)
    if not folder or not Path(folder).is_dir():
        return
    lock = os.open(Path(folder) / LOCK, os.O_RDWR | os.O_CLOEXEC)
    threading.Thread(target=_wait_for_lock, args=(lock,), name="launcher-watch", daemon=True).start()


def _wait_for_lock(lock: int) -> None:
    """Block until the launcher is gone, then take this process along. Shared, so that all ranks wake at once."""
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.kill(os.getpid(), signal.SIGKILL)


def setup_logging(rank: int, log_dir: str | Path | None = None) -> None:
    """Send log lines of rank 0 to stderr, of other ranks only warnings, and with `log_dir` all of them to files.

    Args:
        log_dir: folder for `rank_N.log`; made if absent.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    prefix = "" if rank == 0 else f"[rank {rank}] "
    console.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    root.addHandler(console)
    if log_dir is not None:
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(Path(log_dir) / f"rank_{rank}.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(file)
    root.setLevel(logging.INFO)
    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)


_CHATTY = (
    "torch",
    "megatron.core",
    "transformers",
    "urllib3",
    "filelock",
    "matplotlib",
    "datasets",
)
