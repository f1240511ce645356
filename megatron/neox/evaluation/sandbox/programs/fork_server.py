"""A warm interpreter that forks a child for each candidate and takes every right from it first.

    python -s -P -S -B fork_server.py SETTINGS      (JSON, the fields of `Settings`)

It speaks over a Unix socket with the judge that started it, and is gone when that is. `S` with two descriptors
(commands, replies) starts a child and is answered by its process number; `K` kills it and is answered by its
wait status; both numbers take four bytes. At the start it says `R`, or `E` and why it cannot work.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, _HERE)
import candidate
import landlock
import seccomp

sys.path.remove(_HERE)

# What programs import most, so that a child finds it ready; anything else of the standard library works too.
_PRELOADED = (
    "bisect", "collections", "copy", "ctypes", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq",
    "itertools", "json", "math", "operator", "random", "re", "statistics", "string", "traceback", "typing", "unittest",
)  # fmt: skip
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_MAX_DESCRIPTORS = 64
_MAX_THREADS = 8
_STACK_BYTES = 64 << 20


@dataclass(frozen=True)
class Settings:
    """What the judge says about the children to come."""

    control: int
    """Descriptor of the socket to the judge."""
    uid: int | None
    """User and group that a child becomes; none keeps those of this process, which is nobody special."""
    use_landlock: bool
    memory_bytes: int
    cpu_seconds: int


def main(settings: Settings) -> None:
    """Prepare, then serve until the judge is gone."""
    control = socket.socket(fileno=settings.control)
    for name in os.environ.keys() - {"PYTHONHASHSEED"}:  # of a container's making
        del os.environ[name]
    try:
        for name in _PRELOADED:
            importlib.import_module(name)
        if settings.uid is not None:
            _keep_library_reachable(settings.uid)
        ruleset = _ruleset() if settings.use_landlock else None
    except OSError as error:
        control.sendall(b"E" + str(error).encode())
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a candidate prints is nobody's
    landlock.libc()
    gc.collect()
    gc.freeze()
    control.sendall(b"R")
    _serve(control, settings, ruleset)


def _serve(control: socket.socket, settings: Settings, ruleset: int | None) -> None:
    child, call_filter = 0, seccomp.prepare_filter()
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if order == b"S":
            child = os.fork()
            if child == 0:
                _become_candidate(control, settings, ruleset, call_filter, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            control.sendall(struct.pack("=i", child))
            continue
        status = 0
        if child:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            child = 0
        if not order:
            return
        control.sendall(struct.pack("=i", status))


def _become_candidate(
    control: socket.socket,
    settings: Settings,
    ruleset: int | None,
    call_filter: bytes,
    descriptors: list[int],
) -> None:
    """Never returns: the child gives up everything, serves one candidate and ends."""
    code = 1
    try:
        server = os.getppid()
        commands, replies = descriptors
        control.close()
        _limit(settings)
        if settings.uid is not None:
            os.setgroups([])
            os.setresgid(settings.uid, settings.uid, settings.uid)
            os.setresuid(settings.uid, settings.uid, settings.uid)
        landlock.libc().prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            os._exit(1)
        if ruleset is not None:
            landlock.restrict_self(ruleset)
            os.close(ruleset)
        seccomp.restrict_self(call_filter, landlock.libc())
        candidate.serve(commands, replies)
        code = 0
    finally:
        os._exit(code)


def _limit(settings: Settings) -> None:
    limits = {
        resource.RLIMIT_AS: settings.memory_bytes,
        resource.RLIMIT_CPU: settings.cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _MAX_DESCRIPTORS,
        resource.RLIMIT_STACK: _STACK_BYTES,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if settings.uid is not None:  # this limit counts all processes of a user, who must be the child alone
        limits[resource.RLIMIT_NPROC] = _MAX_THREADS
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def _ruleset() -> int:
    """Reading the standard library without what is installed beside it, shared libraries, and four devices.

    Benchmarks with their answers lie in site-packages, so each part of the library is named by itself.
    """
    library = sysconfig.get_path("stdlib")
    folders = {library, sysconfig.get_path("platstdlib")}
    parts = [
        os.path.join(folder, name)
        for folder in folders
        for name in os.listdir(folder)
        if name not in ("site-packages", "dist-packages")
    ]
    files = [part for part in parts if os.path.isfile(part)] + [*_shared_libraries(), *_DEVICES]
    trees = [part for part in parts if os.path.isdir(part)] + ["/usr/share/zoneinfo"]
    return landlock.make_ruleset([*files, "/etc/ld.so.cache", "/etc/localtime"], trees, folders)


def _shared_libraries() -> list[str]:
    """Those that extension modules load, where the dynamic linker looks for them and where Python's own lies."""
    architecture = sysconfig.get_config_var("MULTIARCH") or ""
    bases = [Path(base) for base in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")]
    folders = {folder for base in bases for folder in (base, base / architecture)}
    folders.add(Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib"))
    return [str(path) for folder in folders for path in folder.glob("*.so*")]


def _keep_library_reachable(uid: int) -> None:
    """Import through open descriptors where `uid` may not walk to the library, such as below a closed /root.

    Raises:
        OSError: it can be reached neither way, or nobody can become `uid` here.
    """
    if not _can_list([], uid):
        raise PermissionError(
            f"root may not become user {uid} here (no CAP_SETUID, or a user namespace without that number); "
            "run the command as a user who is not root"
        )
    folders = [entry for entry in sys.path if os.path.isdir(entry)]
    if _can_list(folders, uid):
        return
    moved = {folder: f"/proc/self/fd/{os.open(folder, os.O_PATH)}" for folder in folders}
    if not _can_list([*moved.values()], uid):
        raise PermissionError(
            f"user {uid} can reach {folders[0]} by no way; use a Python that all users can read"
        )
    longest_first = sorted(moved, key=len, reverse=True)

    def new(place: str) -> str:
        return next((moved[old] + place[len(old) :] for old in longest_first if place.startswith(old)), place)

    sys.path[:] = [new(entry) for entry in sys.path]
    for module in [*sys.modules.values()]:
        if isinstance(getattr(module, "__path__", None), list):
            module.__path__[:] = [new(entry) for entry in module.__path__]
    with contextlib.suppress(ImportError):
        importlib.import_module("no_module_has_this_name")  # lists the folders once, for all children


def _can_list(folders: list[str], uid: int) -> bool:
    """Whether a process of `uid` can; it is asked of one, since ways and rights are the kernel's business."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            for folder in folders:
                names = [name for name in os.listdir(folder) if name.endswith(".py")]
                for name in names[:1]:
                    os.stat(os.path.join(folder, name))
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(Settings(**json.loads(sys.argv[1])))
