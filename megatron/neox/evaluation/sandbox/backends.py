"""What holds a program in: bubblewrap, Landlock or a container; seccomp, limits and another user always."""

from __future__ import annotations

import atexit
import functools
import json
import math
import os
import platform
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from megatron.neox.errors import DependencyError, did_you_mean
from megatron.neox.evaluation.sandbox.programs import landlock

PROGRAMS = Path(__file__).with_name("programs")
# Instead of -I, which would ignore PYTHONHASHSEED: the environment is empty but for it.
PYTHON = (os.path.realpath(sys.executable), "-s", "-P", "-S", "-B", "-X", "utf8")
# The numbers that systemd keeps for users who exist only while a service runs.
_FIRST_UID, _NUM_UIDS = 61184, 4336
_MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Limits:
    """What one program may use; one process, no file written, no network in any case."""

    wall_seconds: float = 3.0
    memory_bytes: int = 1 << 30

    @property
    def cpu_seconds(self) -> int:
        """Behind the wall clock, should that not end it."""
        return math.ceil(self.wall_seconds) + 1


@dataclass(frozen=True)
class Backend:
    """A way to start the fork server."""

    name: str
    description: str
    prefix: Callable[[], list[str]]
    """Command that runs another inside."""
    use_landlock: bool

    def server_command(self, limits: Limits, lane: int) -> list[str]:
        """The command of a fork server, its settings last."""
        settings = {
            "uid": unprivileged_uid(lane) if os.geteuid() == 0 else None,
            "use_landlock": self.use_landlock,
            "memory_bytes": limits.memory_bytes,
            "cpu_seconds": limits.cpu_seconds,
        }
        return [*self.prefix(), *PYTHON, str(PROGRAMS / "fork_server.py"), json.dumps(settings)]


def unprivileged_uid(lane: int) -> int:
    """A user nobody is, another for each lane: limits of processes and rights to signal go by user."""
    known = {user.pw_uid for user in pwd.getpwall()}
    start = os.getpid() * 61 + lane
    free = (uid for step in range(_NUM_UIDS) if (uid := _FIRST_UID + (start + step) % _NUM_UIDS) not in known)
    return next(free)


def _landlock() -> Backend | str:
    if not (version := landlock.version()):
        return "this kernel has no Landlock (Linux 5.13 or later, with landlock among its active modules)"
    return Backend("landlock", f"Landlock (version {version}), seccomp, limits", list, True)


def _bubblewrap() -> Backend | str:
    program = shutil.which("bwrap")
    if program is None:
        return "bwrap is not installed (apt install bubblewrap, dnf install bubblewrap)"
    complaint = _complaint([*_bubblewrap_command(program), "--", PYTHON[0], "-c", ""])
    if complaint:
        return f"bwrap does not work here: {complaint}"
    has_landlock = landlock.version() > 0
    description = "bubblewrap (namespaces), " + "Landlock, " * has_landlock + "seccomp, limits"
    return Backend("bubblewrap", description, lambda: [*_bubblewrap_command(program), "--"], has_landlock)


def _container() -> Backend | str:
    program = shutil.which("podman")
    if program is None:
        return "podman is not installed (apt install podman runc, dnf install podman)"
    if os.geteuid() != 0:
        return "containers are started by root only (those of other users were not tried)"
    complaint = _complaint([*_container_command(program, num_descriptors=0), PYTHON[0], "-c", ""])
    if complaint:
        return f"podman does not work here: {complaint}"
    has_landlock = landlock.version() > 0
    description = "container (podman), " + "Landlock, " * has_landlock + "seccomp, limits"
    return Backend("container", description, lambda: _container_command(program), has_landlock)


def _complaint(command: list[str]) -> str:
    done = subprocess.run(
        command, env={}, capture_output=True, check=False, stdin=subprocess.DEVNULL, cwd="/"
    )
    return done.stderr.decode(errors="replace").strip()[:300] or f"exit code {done.returncode}" * bool(
        done.returncode
    )


def _bubblewrap_command(program: str) -> list[str]:
    """An empty root with the standard library, shared libraries and four devices, read-only; no /proc."""
    command = [program, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if os.geteuid() == 0:  # the fork server gives its children another user, and ends them
        command.remove("--unshare-all")  # a user namespace would make that user, too, root outside
        command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_KILL"):
            command += ["--cap-add", capability]
    ways = {str(parent) for folder in _visible_folders() for parent in Path(folder).parents}
    for way in sorted(ways - {"/"}, key=len):  # else they would be closed where they are outside, as /root is
        command += ["--perms", "0755", "--dir", way]
    for folder in _visible_folders():
        command += ["--ro-bind", folder, folder]
    for folder in _hidden_folders():
        command += ["--tmpfs", folder]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for device in ("null", "zero", "random", "urandom"):
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return [*command, "--remount-ro", "/", "--chdir", "/"]


def _container_command(program: str, *, num_descriptors: int = 1) -> list[str]:
    """A container of no image, with what bubblewrap's root holds, and a /proc of its own that Landlock closes.

    Args:
        num_descriptors: how many it inherits beyond the first three.
    """
    # crun, the usual choice, refuses machines that have cgroups of both versions.
    command = [program, *(["--runtime", "runc"] if shutil.which("runc") else [])]
    command += [
        "run",
        "--rm",
        "--preserve-fds",
        str(num_descriptors),
        "--network",
        "none",
        "--ipc",
        "private",
        "--log-driver",
        "none",
    ]
    command += [
        "--read-only",
        "--read-only-tmpfs=false",
        "--security-opt",
        "no-new-privileges",
        "--systemd",
        "false",
    ]
    command += [
        "--pids-limit",
        "64",
        "--memory",
        str(2 * Limits().memory_bytes),
        "--ulimit",
        "nofile=256",
        "--ulimit",
        "nproc=512",
    ]
    command += [
        "--cap-drop",
        "all",
        "--cap-add",
        "SETUID,SETGID,KILL",
        "--env",
        "PYTHONHASHSEED=0",
        "--workdir",
        "/",
    ]
    for folder in _visible_folders():
        command += ["--volume", f"{folder}:{folder}:ro"]
    for folder in _hidden_folders():
        command += ["--tmpfs", f"{folder}:ro,size=4k,notmpcopyup"]
    return [*command, "--rootfs", _empty_root()]


@functools.cache
def _empty_root() -> str:
    """A folder for the places where other folders appear in a container; gone with this process."""
    folder = tempfile.mkdtemp(prefix="sandbox-")
    os.chmod(folder, 0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _visible_folders() -> list[str]:
    library = sysconfig.get_path("stdlib")
    wanted = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo"]
    wanted += [library, str(PROGRAMS), str(Path(PYTHON[0]).parent)]
    if shared := sysconfig.get_config_var("LDLIBRARY"):
        place = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib") / shared
        wanted += [str(place.parent)] if place.is_file() and not library.startswith("/usr/") else []
    return sorted({folder for folder in wanted if os.path.isdir(folder)}, key=len)


def _hidden_folders() -> list[str]:
    """What is installed beside the standard library: benchmarks with their answers among it."""
    found = {
        str(place)
        for folder in _visible_folders()
        for pattern in ("*-packages", "python3*/*-packages")
        for place in Path(folder).glob(pattern)
        if place.is_dir()
    }
    return sorted(found, key=len)


_CANDIDATES: dict[str, Callable[[], Backend | str]] = {
    "bubblewrap": _bubblewrap,
    "landlock": _landlock,
    "container": _container,
}


def find_backend(name: str) -> Backend | str:
    """The backend of a name, or what it lacks on this machine."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        lack = f"programs can be held on Linux on {' and '.join(_MACHINES)} only; this is {sys.platform} "
        return lack + platform.machine()
    return _CANDIDATES[name]()


def choose_backend(name: str = "auto") -> Backend:
    """The backend of a name, or for `auto` the first that works here of bubblewrap, landlock, container.

    Raises:
        DependencyError: it does not work here; says what to install.
    """
    if name not in ("auto", *_CANDIDATES):
        known = ", ".join(("auto", *_CANDIDATES))
        raise DependencyError(f"no sandbox is named {name}{did_you_mean(name, _CANDIDATES)}; known: {known}")
    lacks = []
    for each in [name] if name != "auto" else _CANDIDATES:
        backend = find_backend(each)
        if isinstance(backend, Backend):
            return backend
        lacks.append(f"  {each}: {backend}")
    raise DependencyError(
        "generated programs cannot be executed safely here, so none is executed\n" + "\n".join(lacks)
    )
