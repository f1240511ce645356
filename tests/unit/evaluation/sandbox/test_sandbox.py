"""The sandbox around its programs: what its judge may rely on, what becomes of a lost judge, and when it refuses."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from megatron.neox.errors import DependencyError, ResourceError
from megatron.neox.evaluation.sandbox import Backend, Limits, Sandbox, Trial, choose_backend
from megatron.neox.evaluation.sandbox import backends as backends_module
from megatron.neox.evaluation.sandbox.backends import find_backend
from megatron.neox.evaluation.sandbox.programs import seccomp

ROOT = Path(__file__).resolve().parents[4]
NAMES = ["bubblewrap", "landlock", "container"]
NOT_ONLY_FOR_ROOT = NAMES[:2]


def _backend(name: str) -> Backend:
    backend = find_backend(name)
    if not isinstance(backend, Backend):
        pytest.skip(backend)
    return backend


@pytest.fixture(scope="module", params=NAMES)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(_backend(request.param), Limits(wall_seconds=2.0), num_lanes=2) as held:
        yield held


def _trial(program: str, test: str, support: str = "", seconds: float = 2.0) -> Trial:
    return Trial(program, "f", f"def check(candidate):\n    {test}\n", support, seconds)


@pytest.mark.parametrize(
    ("program", "test", "reason"),
    [
        ("def f(*a, **k): return a, k", "assert candidate(1, 2.5, x=[{'a'}]) == ((1, 2.5), {'x': [{'a'}]})", "passed"),
        ("def f(x): return x", "x = float('inf'); assert candidate(x) == x", "passed"),
        ("def f(x): return x * x", "assert candidate(10 ** 5000) == 10 ** 10000", "passed"),
        ("def f(x): return x", "assert candidate('\\0\\ud800') == '\\0\\ud800'", "passed"),
        ("def f(x): raise ValueError('no')", "\n    try: candidate(1)\n    except ValueError: pass", "passed"),
        ("def f(x): raise KeyError", "\n    try: candidate(1)\n    except ValueError: pass", "error"),
        ("def f(x): return x + 1", "pass", "unused"),
        ("def g(x): return x + 1", "candidate(1)", "error"),
        ("f = 5", "candidate(1)", "error"),
        ("import os\ndef f(x): os._exit(0)", "\n    try: candidate(1)\n    except BaseException: pass", "crash"),
        ("import time\ndef f(x): time.sleep(9)", "\n    try: candidate(1)\n    except BaseException: pass", "timeout"),
        ("n = 0\ndef f():\n    global n\n    n += 1\n    return n", "assert [candidate(), candidate()] == [1, 2]",
         "passed"),
        ("from collections import Counter as f", "assert candidate('aab') == {'a': 2, 'b': 1}", "passed"),
        ("def f(): return object()", "candidate()", "reply"),
        ("import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\ndef f(x): return P(x).x",
         "assert candidate(1) == 1", "passed"),
        ("import xml.etree.ElementTree as e, sqlite3, ssl, lzma, zoneinfo, asyncio, email.mime.text\n"
         "def f(): return e.fromstring('<a/>').tag + 'é'.encode('latin-1').decode('cp1252')",
         "assert candidate() == 'aé'", "passed"),
        ("import threading\ndef f(x):\n    r = []\n    t = threading.Thread(target=r.append, args=(x,))\n"
         "    t.start()\n    t.join()\n    return r", "assert candidate(1) == [1]", "passed"),
    ],
)  # fmt: skip
def test_the_function_behaves_as_if_it_were_here(
    program: str, test: str, reason: str, sandbox: Sandbox
) -> None:
    seconds = 0.5 if reason == "timeout" else 2.0
    verdict = sandbox.judge(_trial(program, test, seconds=seconds))
    assert verdict.reason == reason, verdict
    assert verdict.passed == (reason == "passed")


def test_tests_may_use_support_and_never_what_the_program_made_of_it(sandbox: Sandbox) -> None:
    support = "def double(x): return 2 * x\ndef f(x): ..."
    program = "def double(x): return 0\ndef f(x): return 0"
    assert sandbox.judge(_trial(program, "assert candidate(3) == double(3)", support)).reason == "wrong"


def test_a_program_finds_nothing_of_the_one_before(sandbox: Sandbox) -> None:
    leave = "import math\nmath.left = 5\ndef f(): return math.left"
    assert sandbox.judge(_trial(leave, "assert candidate() == 5")).passed
    find = "import math\ndef f(): return hasattr(math, 'left')"
    for _ in range(4):  # both lanes
        assert sandbox.judge(_trial(find, "assert candidate() is False")).passed


def test_strings_hash_alike_each_time(sandbox: Sandbox) -> None:
    program = "def f(): return list({'a', 'b', 'c', 'd', 'e'})"
    order = list(subprocess.run(
        [sys.executable, "-c", "print(*{'a', 'b', 'c', 'd', 'e'}, sep='', end='')"],
        env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True,
    ).stdout)  # fmt: skip
    assert sandbox.judge(_trial(program, f"assert candidate() == {order!r}")).passed


def test_tests_that_hang_are_ended_and_others_go_on(sandbox: Sandbox) -> None:
    right = _trial("def f(x): return x", "assert candidate(1) == 1")
    hang = _trial("def f(x): return x", "candidate(1)\n    while True: pass", seconds=0.3)
    in_c = _trial("def f(x): return x", "sum(range(candidate(10 ** 11)))", seconds=0.3)
    reasons = {
        number: verdict.reason for number, verdict in sandbox.verdicts([right, hang, right, in_c, right])
    }
    assert reasons == {0: "passed", 1: "timeout", 2: "passed", 3: "timeout", 4: "passed"}


def test_a_judge_that_somebody_kills_is_replaced(sandbox: Sandbox) -> None:
    right = _trial("def f(x): return x", "assert candidate(1) == 1")
    assert len([sandbox.judge(right) for _ in range(4)]) == 4
    judges = [child for child in psutil.Process().children() if "judge.py" in " ".join(child.cmdline())]
    assert len(judges) >= 2
    for judge in judges:
        judge.kill()
        judge.wait()
    for _ in range(2):
        with pytest.raises(ResourceError, match="a judge of the sandbox was killed"):
            sandbox.judge(right)
    assert [verdict.passed for _, verdict in sandbox.verdicts([right] * 4)] == [True] * 4


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_of_a_closed_sandbox(name: str) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Sandbox(_backend(name), num_lanes=2) as sandbox:
        family = psutil.Process().children(recursive=True)
        assert sandbox.judge(_trial("def f(x): return x", "assert candidate(1) == 1")).passed
    new = [child for child in family if child.pid not in before]
    assert len(new) >= 4
    _, alive = psutil.wait_procs(new, timeout=2)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_of_a_scorer_that_is_killed(name: str) -> None:
    _backend(name)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from megatron.neox.evaluation.sandbox import *\n"
        f"sandbox = Sandbox(choose_backend({name!r}), num_lanes=1)\n"
        "print('ready', flush=True)\n"
        "sandbox.judge(Trial('while True: pass', 'f', '', '', 60.0))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=2)
    for each in alive:
        each.send_signal(signal.SIGKILL)
    assert [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def test_without_a_backend_nothing_is_executed_and_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(backends_module.landlock, "version", lambda: 0)
    with pytest.raises(DependencyError) as caught:
        choose_backend()
    text = str(caught.value)
    assert text.startswith("generated programs cannot be executed safely here, so none is executed\n")
    assert "bubblewrap: bwrap is not installed (apt install bubblewrap" in text
    assert "landlock: this kernel has no Landlock (Linux 5.13 or later" in text
    assert "container: podman is not installed (apt install podman" in text


def test_a_backend_that_was_asked_for_is_never_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DependencyError, match="bwrap is not installed"):
        choose_backend("bubblewrap")
    with pytest.raises(DependencyError, match="podman is not installed"):
        choose_backend("container")
    with pytest.raises(DependencyError, match="no sandbox is named bublewrap; did you mean bubblewrap"):
        choose_backend("bublewrap")


def test_a_backend_that_holds_less_than_it_says_is_refused() -> None:
    """Here: no Landlock, nor anything in its place. Only seccomp and limits are left."""
    with pytest.raises(
        DependencyError, match="does not hold here: failed: a program in it reads files, lists folders"
    ):
        Sandbox(Backend("nothing", "", list, False), num_lanes=1)


@pytest.mark.parametrize("name", NOT_ONLY_FOR_ROOT)
def test_it_holds_for_a_user_who_is_not_root(name: str) -> None:
    """Root's tests run it as nobody; whoever else runs the tests is such a user already."""
    python = next(
        (
            p
            for p in ("/usr/bin/python3.13", "/usr/bin/python3.12", "/usr/bin/python3.11")
            if Path(p).exists()
        ),
        "",
    )
    if os.geteuid() != 0 or not python:
        pytest.skip("needs root and a Python of the system's, 3.11 or later")
    _backend(name)
    programs = [
        "def f(x): return x + 1",
        "import os\ndef f(x):\n    os.kill(os.getppid(), 0)\n    return 2",
        "import os\ndef f(x):\n    os.fork()\n    return 2",
        "def f(x): return len(open('/etc/passwd').read()[:2])",
    ]
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.dont_write_bytecode = True\n"
        "from megatron.neox.evaluation.sandbox import *\n"
        f"with Sandbox(choose_backend({name!r}), Limits(wall_seconds=2.0), num_lanes=1) as sandbox:\n"
        f"    for program in {programs!r}:\n"
        "        print(sandbox.judge(Trial(program, 'f', 'def check(c): assert c(1) == 2', '', 2.0)).reason)\n"
    )
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, user=65534, group=65534,
                         extra_groups=[], env={"PATH": "/usr/bin:/bin"}, cwd="/", check=False)  # fmt: skip
    if ran.returncode and "bwrap does not work here" in ran.stderr:
        pytest.skip(ran.stderr.splitlines()[-1])
    assert ran.stdout.split() == ["passed", "error", "error", "error"], ran.stderr


@pytest.mark.parametrize(("header", "column"), [
    ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0), ("/usr/include/asm-generic/unistd.h", 1),
])  # fmt: skip
def test_system_calls_have_the_numbers_of_the_kernels_headers(header: str, column: int) -> None:
    if not Path(header).exists():
        pytest.skip(f"{header} is not installed")
    words = [
        line.split() for line in Path(header).read_text().splitlines() if line.startswith("#define __NR")
    ]
    known = {
        w[1].replace("__NR3264_", "__NR_")[5:]: int(w[2]) for w in words if len(w) > 2 and w[2].isdigit()
    }
    known["newfstatat"] = known.get("newfstatat", known.get("fstatat", -1))
    for name, numbers in {**seccomp.CALLS, **seccomp._GUARDED}.items():
        if numbers[column] is not None:
            assert known[name] == numbers[column], name


def test_filters_are_built_for_both_machines_and_no_other() -> None:
    assert len(seccomp.build_filter(77, "x86_64")) % 8 == 0
    assert seccomp.build_filter(77, "x86_64") != seccomp.build_filter(78, "x86_64")
    assert seccomp.build_filter(77, "aarch64") != seccomp.build_filter(77, "x86_64")
    assert seccomp.with_pid(seccomp.prepare_filter(), 77) == seccomp.build_filter(77)
    with pytest.raises(KeyError):
        seccomp.build_filter(77, "riscv64")


@pytest.mark.parametrize("name", NOT_ONLY_FOR_ROOT)
def test_a_root_that_cannot_become_another_user_is_told_so(name: str) -> None:
    _backend(name)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from megatron.neox.evaluation.sandbox import *\n"
        f"Sandbox(choose_backend({name!r}), num_lanes=1)\n"
    )
    ran = subprocess.run(
        ["unshare", "--map-root-user", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode and "unshare" in ran.stderr.splitlines()[-1]:
        pytest.skip(ran.stderr)
    assert ran.returncode == 1
    assert re.search(
        r"root may not become user \d+ here .*; run the command as a user who is not root", ran.stderr
    )
