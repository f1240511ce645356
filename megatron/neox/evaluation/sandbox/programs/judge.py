"""The judge: executes tests in this process, on a function that lives in the sandbox.

    python -s -P -S -B judge.py SETTINGS      (JSON: server, the command of a fork server with its settings)

It reads trials from standard input and writes verdicts to standard output, a JSON line each: the fields of
`Trial` and of `Verdict`. Tests and support code are trusted, programs and what they answer are not. When tests
hang, the kernel ends this process a moment after the trial's time, and whoever started it starts another.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, _HERE)
import plain_data

REPLY_BYTES = 8 << 20
GRACE_SECONDS = 0.3  # of the tests, after the candidate's time is over
_MESSAGE_LENGTH = 300


@dataclass(frozen=True)
class Trial:
    """A program and the tests of its function."""

    program: str
    entry_point: str
    test: str
    """Defines check(candidate), which raises where the function is wrong."""
    support: str
    """Trusted code whose names the tests use."""
    wall_seconds: float


@dataclass(frozen=True)
class Verdict:
    """What became of a trial."""

    passed: bool
    result: str
    """In the words of openai/human-eval: `passed`, `timed out`, or `failed: ` and why."""
    reason: str
    """passed, wrong, error, timeout, crash, reply (one that is not plain data), unused (never called)."""
    seconds: float


class Ended(BaseException):
    """The trial is over whatever the tests make of it; no `except Exception` holds it up."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


class CandidateError(Exception):
    """The function raised something that has no counterpart here."""


class Server:
    """The fork server, and the one child that it has at a time."""

    def __init__(self, command: list[str]) -> None:
        theirs, ours = socket.socketpair()  # podman hands on only what follows standard error: number 3
        settings = json.dumps({**json.loads(command[-1]), "control": theirs.fileno()})
        self._process = subprocess.Popen(
            [*command[:-1], settings],
            env={"PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            cwd="/",
        )
        theirs.close()
        self._control = ours

    def wait_until_ready(self) -> str:
        """Wait for the server's first word; its complaint, or "" where it is ready."""
        said = self._control.recv(4096)
        if said == b"R":
            return ""
        assert self._process.stderr is not None
        return said[1:].decode() or self._process.stderr.read()[-400:].decode(errors="replace").strip()

    def start(self) -> tuple[int, int]:
        """A child; the descriptors of its commands (to write) and of its replies (to read)."""
        commands, our_commands = os.pipe2(os.O_CLOEXEC)
        our_replies, replies = os.pipe2(os.O_CLOEXEC)
        socket.send_fds(self._control, [b"S"], [commands, replies])
        os.close(commands)
        os.close(replies)
        self._number()
        os.set_blocking(our_commands, False)
        os.set_blocking(our_replies, False)
        return our_commands, our_replies

    def kill(self) -> int:
        """End the child, and wait until it is gone; its wait status."""
        self._control.sendall(b"K")
        return self._number()

    def close(self) -> None:
        """End the server, and wait until it is gone."""
        self._control.close()
        self._process.wait()

    def _number(self) -> int:
        answer = self._control.recv(4, socket.MSG_WAITALL)
        if len(answer) < 4:
            sys.exit("the fork server is gone")
        return struct.unpack("=i", answer)[0]


class Proxy:
    """The function under test, as the tests see it."""

    def __init__(self, commands: int, replies: int, deadline: float) -> None:
        self._commands, self._replies, self._deadline = commands, replies, deadline
        self._unread = b""
        self.calls = 0
        self.ended: Ended | None = None

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it with plain data.

        Raises:
            Exception: what it raised, by the name of a built-in exception, else CandidateError.
            Ended: it was too late, it is dead, or its reply is not plain data.
        """
        self.calls += 1
        return _value(self._guarded(lambda: self._ask((arguments, keywords))))

    def load(self, program: str, entry_point: str) -> None:
        """Execute the program.

        Raises:
            Ended: it cannot be executed, or has no such function.
        """
        answer = self._guarded(lambda: self._ask((program, entry_point)))
        if answer is not None:
            kind, message = _error(answer)
            raise self._end(Ended("error", f"{kind}: {message}"))

    def _guarded(self, ask: Callable[[], Any]) -> Any:
        """Once a trial has ended, it stays so, even if the tests swallow everything."""
        if self.ended:
            raise self.ended
        try:
            return ask()
        except plain_data.NotPlainError as error:
            raise self._end(Ended("reply", str(error))) from None
        except Ended as ended:
            raise self._end(ended) from None

    def _end(self, ended: Ended) -> Ended:
        self.ended = ended
        return ended

    def _ask(self, question: Any) -> Any:
        self._write(plain_data.dumps(question) + b"\n")
        answer = plain_data.loads(self._read_line())
        if isinstance(answer, tuple) and answer[:2] == ("error", "NotPlainError"):
            raise Ended("reply", _error(answer)[1])
        return answer

    def _write(self, data: bytes) -> None:
        while data:
            self._wait(select.POLLOUT, self._commands)
            try:
                data = data[os.write(self._commands, data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise Ended("crash", "") from None

    def _read_line(self) -> bytes:
        if self._unread:
            raise Ended("reply", "a reply that nobody asked for")
        pieces, size = [], 0
        while True:
            self._wait(select.POLLIN, self._replies)
            try:
                piece = os.read(self._replies, 1 << 16)
            except BlockingIOError:
                continue
            if not piece:
                raise Ended("crash", "")
            line, end, rest = piece.partition(b"\n")
            pieces.append(line)
            size += len(line)
            if size > REPLY_BYTES:
                raise Ended("reply", f"a reply of more than {REPLY_BYTES >> 20} MiB")
            if end:
                self._unread = rest
                return b"".join(pieces)

    def _wait(self, event: int, descriptor: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        poll.register(0, 0)
        left = self._deadline - time.monotonic()
        ready = poll.poll(left * 1000) if left > 0 else []
        if any(place == 0 for place, _ in ready):
            os._exit(1)  # whoever asked is gone; with the socket to it closed, the fork server ends all
        if not ready:
            raise Ended("timeout", "")


def _error(answer: Any) -> tuple[str, str]:
    match answer:
        case ("error", str(kind), str(message)):
            return kind, message
    raise plain_data.NotPlainError("a reply that is neither a value nor an error")


def _value(answer: Any) -> Any:
    match answer:
        case ("value", value):
            return value
    kind, message = _error(answer)
    known, raised = getattr(builtins, kind, None), CandidateError(f"{kind}: {message}")
    # One that ends an iteration would cut the tests short: all(map(candidate, inputs)).
    ends_iteration = (StopIteration, StopAsyncIteration)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, ends_iteration):
        with contextlib.suppress(TypeError):  # some want more than a message
            raised = known(message)
    raise raised


def judge(trial: Trial, server: Server) -> Verdict:
    """Run a trial; the child is gone afterwards."""
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, trial.wall_seconds + GRACE_SECONDS)
    commands, replies = server.start()
    proxy = Proxy(commands, replies, start + trial.wall_seconds)
    try:
        reason, message = _examine(trial, proxy)
    finally:
        os.close(commands)
        os.close(replies)
        status = server.kill()
        signal.setitimer(signal.ITIMER_REAL, 0)
    if reason == "crash":
        reason, message = _death(status)
    result = {"passed": "passed", "timeout": "timed out"}.get(reason, f"failed: {message[:_MESSAGE_LENGTH]}")
    return Verdict(reason == "passed", result, reason, round(time.monotonic() - start, 4))


def _examine(trial: Trial, proxy: Proxy) -> tuple[str, str]:
    """Reason and message."""
    try:
        proxy.load(trial.program, trial.entry_point)
        names: dict[str, Any] = {"__name__": "tests"}
        exec(_compiled(trial.support), names)
        names[trial.entry_point] = proxy
        exec(_compiled(trial.test), names)
        names["check"](proxy)
    except Ended as ended:
        return ended.reason, ended.message
    except AssertionError as error:
        reason, message = "wrong", str(error)
    except BaseException as error:
        reason, message = "error", f"{type(error).__name__}: {error}"
    else:
        reason, message = ("passed", "") if proxy.calls else ("unused", "the tests never called the function")
    return (proxy.ended.reason, proxy.ended.message) if proxy.ended else (reason, message)


@functools.lru_cache(maxsize=1024)
def _compiled(source: str) -> types.CodeType:
    """Trusted code, which many samples of one task share."""
    return compile(source, "tests", "exec", dont_inherit=True)


def _death(status: int) -> tuple[str, str]:
    if not os.WIFSIGNALED(status):
        return "crash", f"the program ended itself with exit code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    if number in (signal.SIGKILL, signal.SIGXCPU):
        return "crash", "the program was killed (it closed its pipe, or ran out of processor time)"
    return "crash", f"the program died of {signal.Signals(number).name}"


def main(settings: dict[str, Any]) -> None:
    """Say that all is ready, then judge trials until standard input ends."""
    server = Server(settings["server"])
    verdicts = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # tests may print
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    print(json.dumps({"complaint": server.wait_until_ready()}), file=verdicts, flush=True)
    for line in sys.stdin:
        verdict = judge(Trial(**json.loads(line)), server)
        print(json.dumps(asdict(verdict)), file=verdicts, flush=True)
    server.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
