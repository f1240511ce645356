"""The `save` folder belongs to one run at a time: a lock that the kernel drops when its processes die."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path
from types import TracebackType

import torch

from megatron.neox.engine.agreement import any_rank
from megatron.neox.errors import OutputError

log = logging.getLogger(__name__)

LOCK_NAME = ".lock"

# Ranks of a killed run may take a moment to die; a run that starts right after it waits for them.
_PATIENCE_SECONDS = 5.0


class RunFolder:
    """Context manager that holds the lock on `path` for all ranks of this run.

    Rank 0 takes it alone, then shares it with the other ranks: a new run is refused as long as any process of
    the old one lives and could write.

    Raises (on entry, on every rank):
        OutputError: another run holds the folder; its process id is named. Or it cannot be written.
    """

    def __init__(self, path: Path, *, is_main: bool, device: torch.device) -> None:
        self.path = path
        self.is_main = is_main
        self.device = device
        self._file: int | None = None

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
            # A folder that was made read-only may hold a lock file that was not; the first save would fail.
            if not os.access(self.path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                self._close()
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise OutputError(
                f"the save folder {self.path} cannot be written: {error.strerror}; give another save folder"
            ) from error
        # Rank 0 first, then the others; every rank takes part in both agreements, so that none waits in vain.
        refused = any_rank(int(self.is_main and not self._take_alone()), self.device)
        refused = refused or any_rank(int(not self.is_main and not self._flock(fcntl.LOCK_SH)), self.device)
        if refused:
            holder = self._holder()
            self._close()
            raise OutputError(
                f"the save folder {self.path} is held by another run{holder}; "
                "wait for it, stop it, or give another save folder"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _take_alone(self) -> bool:
        """Lock exclusively, write who we are, and share the lock again."""
        assert self._file is not None
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._flock(fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        who = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, who, 0)
        return self._flock(fcntl.LOCK_SH)

    def _flock(self, mode: int) -> bool:
        """Try to lock; a file system without locks is warned of and trusted."""
        assert self._file is not None
        try:
            fcntl.flock(self._file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            log.warning(
                "%s cannot be locked (%s): see to it that no other run writes there",
                self.path,
                error.strerror,
            )
        return True

    def _holder(self) -> str:
        try:
            who = json.loads((self.path / LOCK_NAME).read_text())
            return f" (process {who['pid']} on {who['host']})"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
