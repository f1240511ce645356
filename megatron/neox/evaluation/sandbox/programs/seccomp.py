"""The system calls a candidate may make, as a filter of classic BPF; every other one fails with EPERM.

A list of what is allowed, so that whatever a later kernel adds is refused. What is not on it: processes and
programs (fork, execve), sockets, signals to others, anything that changes files, limits of others, memory that
outlives or evades the process' own limit (shared memory, memfd), ptrace, namespaces, io_uring, keyctl, bpf.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence

# By name: the number on x86_64 (none where it has no such call), and on aarch64.
CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66),
    "access": (21, None), "pipe": (22, None), "select": (23, None), "sched_yield": (24, 124),
    "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None), "pause": (34, None),
    "nanosleep": (35, 101), "getitimer": (36, 102), "alarm": (37, None), "setitimer": (38, 103),
    "getpid": (39, 172), "exit": (60, 93), "uname": (63, 160), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "readlink": (89, None), "umask": (95, 166), "gettimeofday": (96, 169),
    "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179), "times": (100, 153),
    "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177),
    "getppid": (110, 173), "getpgrp": (111, None), "getgroups": (115, 158), "getresuid": (118, 148),
    "getresgid": (120, 150), "getpgid": (121, 155), "getsid": (124, 156), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132),
    "gettid": (186, 178), "time": (201, None), "futex": (202, 98), "sched_getaffinity": (204, 123),
    "epoll_create": (213, None), "getdents64": (217, 61), "set_tid_address": (218, 96),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "epoll_wait": (232, None),
    "epoll_ctl": (233, 21), "openat": (257, 56), "open": (2, None), "newfstatat": (262, 79),
    "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "epoll_pwait": (281, 22),
    "eventfd2": (290, 19), "epoll_create1": (291, 20), "dup3": (292, 24), "pipe2": (293, 59),
    "getrandom": (318, 278), "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293),
    "faccessat2": (439, 439),
}  # fmt: skip
# Allowed with certain arguments only.
_GUARDED = {
    "ioctl": (16, 29), "clone": (56, 220), "kill": (62, 129), "fcntl": (72, 25), "prctl": (157, 167),
    "tkill": (200, 130), "tgkill": (234, 131), "prlimit64": (302, 261),
}  # fmt: skip
_CLONE3 = 435  # glibc falls back to clone, whose flags can be read, where it does not exist
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS FIONREAD FIONBIO FIONCLEX FIOCLEX
_FCNTLS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD GETFD SETFD GETFL SETFL F_DUPFD_CLOEXEC
_PRCTLS = (15, 16)  # PR_SET_NAME PR_GET_NAME
_CLONE_THREAD = 0x10000
_CLONE_NEW = 0x7E020080  # all namespaces

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_SYSCALL_OF_SECCOMP = {"x86_64": 317, "aarch64": 277}
_NO_NEW_PRIVS = 38

_Instruction = tuple[int, int, int, int]


def build_filter(pid: int, machine: str = platform.machine()) -> bytes:
    """The program for a process, as an array of struct sock_filter.

    Args:
        pid: the process' own number, the only one it may signal or limit.
        machine: x86_64 or aarch64.

    Raises:
        KeyError: another machine, whose system calls are not known here.
    """
    column, audit = _MACHINES[machine]
    refuse = [_result(_ERROR | errno.EPERM)]
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), _result(_KILL), (_LOAD, 0, 0, 0)]
    for numbers in CALLS.values():
        if (number := numbers[column]) is not None:
            code += [(_EQUAL, 0, 1, number), _result(_ALLOW)]
    for name, numbers in _GUARDED.items():
        body = [*_guard(name, pid), *refuse]
        code += [(_EQUAL, 0, len(body), numbers[column]), *body]
    code += [(_EQUAL, 0, 1, _CLONE3), _result(_ERROR | errno.ENOSYS), *refuse]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _result(action: int) -> _Instruction:
    return (_RETURN, 0, 0, action)


def _guard(name: str, pid: int) -> list[_Instruction]:
    """Instructions that allow a call for some arguments and fall through for others."""
    if name == "clone":
        return [
            _low_half(0),
            (_ANY_BIT, 2, 0, _CLONE_NEW),
            (_ANY_BIT, 0, 1, _CLONE_THREAD),
            _result(_ALLOW),
        ]
    argument, values = {
        "ioctl": (1, _IOCTLS), "fcntl": (1, _FCNTLS), "prctl": (0, _PRCTLS), "kill": (0, (pid,)),
        "tkill": (0, (pid,)), "tgkill": (0, (pid,)), "prlimit64": (0, (0, pid)),
    }[name]  # fmt: skip
    return [_low_half(argument), *_allow_values(values)]


def _low_half(argument: int) -> _Instruction:
    return (_LOAD, 0, 0, 16 + 8 * argument)


def _allow_values(values: Sequence[int]) -> list[_Instruction]:
    return [step for value in values for step in ((_EQUAL, 0, 1, value), _result(_ALLOW))]


# Stands for the process' number in a filter that is made before the process is.
_ANY_PID = 0x5EC0117A


def prepare_filter() -> bytes:
    """The filter of a process to come, so that it has nothing left to do but to fill in its number."""
    return build_filter(_ANY_PID)


def with_pid(prepared: bytes, pid: int) -> bytes:
    """A prepared filter for a process."""
    return prepared.replace(struct.pack("=I", _ANY_PID), struct.pack("=I", pid))


def restrict_self(prepared: bytes, libc: ctypes.CDLL) -> None:
    """Put a prepared filter on this process, for good.

    Args:
        libc: the C library, with errors kept.

    Raises:
        OSError: the kernel refuses.
    """
    program = with_pid(prepared, os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    number = _SYSCALL_OF_SECCOMP[platform.machine()]
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(number, 1, 0, header):
        raise OSError(ctypes.get_errno(), "seccomp is refused by this kernel")
