"""Start a plan's processes, pass signals on, and leave nobody behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from megatron.neox.engine.distributed import LAUNCH_FOLDER, LOCK
from megatron.neox.launch.plan import Plan
from megatron.neox.launch.ranks import RankEnd, ends, is_alive, starts

_FOLDER_PREFIX = "neox-launch-"
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 5.0
"""How long other ranks may go on after one failed, to say what they met."""


def start(plan: Plan) -> int:
    """Run the processes of a plan to their end.

    SIGINT and SIGTERM go to the ranks, which save and stop; a second one ends them at once. However this process
    or any other of the launch dies, no rank of this machine survives it.

    Returns:
        The code of the rank that failed first by rank number: 2 for a user's mistake, which is printed once,
        1 for another failure; 128 + the signal where one stopped the run; else 0.
    """
    with _launch_folder() as folder:
        environment = {**os.environ, LAUNCH_FOLDER: str(folder)}
        for name, value in plan.environment.items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        # A session of its own: Ctrl-C reaches this process alone, and all that it starts can be ended together.
        process = subprocess.Popen(plan.command, env=environment, start_new_session=True)
        return _Launch(process, folder, plan.num_ranks if plan.is_local else None).wait()


@contextlib.contextmanager
def _launch_folder() -> Iterator[Path]:
    """A folder for this launch, with the lock that dies with this process."""
    _clear_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    try:
        with open(folder / LOCK, "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_abandoned(parent: Path) -> None:
    """Remove the folders of launches that were killed: nobody holds their lock."""
    for folder in parent.glob(f"{_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):  # another launch clears them too, or they are another user's
            if folder.lstat().st_uid != os.getuid() or time.time() - folder.stat().st_mtime < _GRACE_SECONDS:
                continue  # one that is this young may be about to take its lock
            with open(folder / LOCK, encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)


class _Launch:
    """One launch under way.

    Args:
        process: DeepSpeed's runner (or torchrun), leader of a session.
        num_ranks: ranks on this machine that report to `folder`; None where they are elsewhere.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, num_ranks: int | None) -> None:
        self._process = process
        self._folder = folder
        self._num_ranks = num_ranks
        self._signal = 0  # the signal that asked to stop
        self._failed_at: float | None = None

    def wait(self) -> int:
        """Watch until everything has ended; return the exit code."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self._process.poll() is None and not self._is_over():
                time.sleep(_POLL_SECONDS)
        finally:
            self._sweep()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._code()

    def _stop(self, number: int, _: FrameType | None) -> None:
        """Pass a signal on to the ranks; before they are there, and the second time, end everything."""
        second = self._signal != 0
        self._signal = number
        ranks = starts(self._folder)
        if second or (self._num_ranks is not None and len(ranks) < self._num_ranks):
            self._sweep()
        elif self._num_ranks is None:
            os.killpg(self._process.pid, number)
        else:
            for rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank.pid, number)

    def _is_over(self) -> bool:
        """Whether the ranks have ended, or one has failed and the others had their time."""
        if self._num_ranks is None:
            return False
        running = [rank for rank in starts(self._folder) if is_alive(rank.pid)]
        ended = ends(self._folder)
        if len(ended) == self._num_ranks and not running:
            return True
        killed = self._killed()
        if killed and not self._signal:
            return True
        if self._failed_at is None and (killed or any(end.code for end in ended)):
            self._failed_at = time.monotonic()
            self._silence_launcher()
        # Ranks that were asked to stop may take their time to save.
        return self._failed_at is not None and (
            not running or (not self._signal and time.monotonic() - self._failed_at > _GRACE_SECONDS)
        )

    def _killed(self) -> list[int]:
        """Ranks that are gone without having said how they ended."""
        gone = [rank.rank for rank in starts(self._folder) if not is_alive(rank.pid)]
        ended = {
            end.rank for end in ends(self._folder)
        }  # read after `gone`, for a rank writes before it goes
        return [rank for rank in gone if rank not in ended]

    def _silence_launcher(self) -> None:
        """Stop DeepSpeed's launcher, which would kill the other ranks and print their whole command lines."""
        for parent in {rank.parent for rank in starts(self._folder)} - {os.getpid()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(parent, signal.SIGSTOP)

    def _sweep(self) -> None:
        """End every process of the session that is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for rank in starts(self._folder):
            while is_alive(rank.pid):
                time.sleep(_POLL_SECONDS)

    def _code(self) -> int:
        ended = ends(self._folder)
        for message in dict.fromkeys(end.message for end in ended if end.message):
            print(message, file=sys.stderr)
        if failed := _worst(ended):
            return failed
        if self._signal:
            return 128 + self._signal
        if self._num_ranks is not None and len(ended) == self._num_ranks:
            return 0
        if killed := self._killed():
            names = ", ".join(map(str, killed))
            print(
                f"ResourceError\nrank {names} of {self._num_ranks} was killed; all ranks have been ended\n"
                "  out of memory? `dmesg` tells; the run goes on from its newest checkpoint when started again",
                file=sys.stderr,
            )
            return 1
        code = self._process.returncode
        if code < 0 and self._num_ranks is not None:
            print(
                f"ResourceError\nthe launcher was ended by signal {-code}; all ranks have been ended",
                file=sys.stderr,
            )
        return code if code in (0, 2) else 1


def _worst(ended: list[RankEnd]) -> int:
    """The code to return for the ranks' codes: a user's mistake before any other failure."""
    codes = [end.code for end in ended if end.code]
    return 2 if 2 in codes else (codes[0] if codes else 0)
