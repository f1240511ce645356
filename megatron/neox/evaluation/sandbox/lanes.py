"""Judges at work side by side: trials in, verdicts out, whatever becomes of a judge in between."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from megatron.neox.errors import DependencyError, ResourceError
from megatron.neox.evaluation.sandbox.backends import PROGRAMS, PYTHON, Backend, Limits, choose_backend
from megatron.neox.evaluation.sandbox.programs.judge import GRACE_SECONDS, Trial, Verdict

_START_SECONDS = 30.0
# A judge that the kernel does not end in its time is ended from here.
_LAST_SECONDS = 1.0

# Each item is a harm; its name comes back where it could be done.
_PROBE = """
import os, socket, ctypes
def probe(secret, folder):
    done = []
    def attempt(name, harm):
        try:
            harm()
        except OSError:
            return
        done.append(name)
    attempt("reads files", lambda: open(secret).read())
    attempt("lists folders", lambda: os.listdir(folder))
    attempt("writes files", lambda: open(folder + "/canary", "w").write("x"))
    attempt("opens sockets", lambda: socket.socket())
    attempt("starts processes", lambda: os._exit(0) if os.fork() == 0 else None)
    attempt("signals others", lambda: os.kill(os.getppid(), 0))
    if os.environ.keys() - {"PYTHONHASHSEED", "LC_CTYPE", "PWD"}:
        done.append("sees the environment")
    if os.getuid() == 0:
        done.append("is root")
    return done
"""
_PROBE_TEST = """
def check(candidate):
    done = candidate({secret!r}, {folder!r})
    assert done == [], "a program in it " + ", ".join(done)
"""


class Sandbox:
    """Executes trials in as many lanes as there are processor cores; a context manager.

    Raises:
        DependencyError: the backend does not hold what it promises.
    """

    def __init__(
        self, backend: Backend | None = None, limits: Limits | None = None, *, num_lanes: int | None = None
    ) -> None:
        self.backend = backend or choose_backend()
        self.limits = limits or Limits()
        self.num_lanes = num_lanes or len(os.sched_getaffinity(0))
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        self._lanes: list[Lane] = []
        try:
            for number in range(self.num_lanes):
                self._lanes.append(Lane(self.backend, self.limits, number))
                self._free.put(self._lanes[-1])
            self._probe()
        except BaseException:
            self.close()
            raise

    def verdicts(self, trials: Iterable[Trial]) -> Iterator[tuple[int, Verdict]]:
        """Position and verdict of each trial, in the order in which they come to an end."""
        numbered = enumerate(trials)
        running: dict[Future[Verdict], int] = {}
        with ThreadPoolExecutor(self.num_lanes) as threads:
            try:
                while True:
                    while len(running) < 2 * self.num_lanes and (item := next(numbered, None)):
                        running[threads.submit(self.judge, item[1])] = item[0]
                    if not running:
                        return
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(done), done.result()
            finally:
                for waiting in running:
                    waiting.cancel()

    def judge(self, trial: Trial) -> Verdict:
        """The verdict of one trial; waits for a free lane."""
        lane = self._free.get()
        try:
            return lane.judge(trial)
        finally:
            self._free.put(lane)

    def _probe(self) -> None:
        secret, folder = str(PROGRAMS / "judge.py"), str(PROGRAMS)
        test = _PROBE_TEST.format(secret=secret, folder=folder)
        verdict = self.judge(Trial(_PROBE, "probe", test, "", 10.0))
        if not verdict.passed:
            raise DependencyError(
                f"the sandbox {self.backend.name} does not hold here: {verdict.result}; "
                "install bubblewrap, or run on a kernel with Landlock and seccomp"
            )

    def close(self) -> None:
        """End all processes."""
        for lane in self._lanes:
            lane.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lane:
    """One judge and its fork server; a judge that is lost is replaced."""

    def __init__(self, backend: Backend, limits: Limits, number: int) -> None:
        server = backend.server_command(limits, number)
        self._command = [*PYTHON, str(PROGRAMS / "judge.py"), json.dumps({"server": server})]
        self._name = backend.name
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def judge(self, trial: Trial) -> Verdict:
        """The verdict; a judge that comes to none ran out of time in the tests, and is replaced."""
        start = time.monotonic()
        if self._process is None:
            self._start()
        answer = self._ask(asdict(trial), trial.wall_seconds + GRACE_SECONDS + _LAST_SECONDS)
        if answer is not None:
            return Verdict(**answer)
        self.close(patience_seconds=0.0)
        return Verdict(False, "timed out", "timeout", round(time.monotonic() - start, 4))

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env={"PYTHONHASHSEED": "0"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )
        said = self._read(_START_SECONDS) or {"complaint": "its processes do not start"}
        if said["complaint"]:
            self.close()
            raise DependencyError(f"the sandbox {self._name} does not work here: {said['complaint']}")

    def _ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.close()
            raise ResourceError("a judge of the sandbox was killed; run the command again") from None
        return self._read(seconds)

    def _read(self, seconds: float) -> dict[str, Any] | None:
        """The next line, or none where the time or the judge ends first."""
        assert self._process is not None
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        line = self._process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self, *, patience_seconds: float = 2.0) -> None:
        """End the judge, and with it the server and its child."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
