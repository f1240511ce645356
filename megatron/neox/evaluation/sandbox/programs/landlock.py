"""Landlock: which files a process may touch at all. Everything is refused but reading what is named.

The numbers are those of Linux' include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Rights over files that each version of the interface knows; what it does not know, seccomp refuses.
_ACCESS_OF_VERSION = {
    1: (1 << 13) - 1,
    2: (1 << 14) - 1,
    3: (1 << 15) - 1,
    4: (1 << 15) - 1,
    5: (1 << 16) - 1,
}
_BOTH_NETWORK_RIGHTS = 3  # bind and connect of TCP, from version 4
_BOTH_SCOPES = 3  # abstract sockets and signals, from version 6
_NO_NEW_PRIVS = 38


@functools.cache
def libc() -> ctypes.CDLL:
    """The C library with what is called of it, found once, so that children of this process need not."""
    library = ctypes.CDLL(None, use_errno=True)
    assert library.prctl
    assert library.syscall
    return library


def version() -> int:
    """Version of Landlock's interface; 0 where the kernel has none or it is switched off."""
    return max(0, libc().syscall(_CREATE, None, ctypes.c_size_t(0), 1))


def make_ruleset(files: Iterable[str], trees: Iterable[str], folders: Iterable[str]) -> int:
    """A descriptor of rules under which nothing can be done but read what is named; absent ones are left out.

    Args:
        files: files that may be read.
        trees: folders that may be read with everything below them.
        folders: folders whose names may be listed, theirs and those of the folders below.

    Raises:
        OSError: the kernel refuses.
    """
    have = version()
    access = _ACCESS_OF_VERSION[min(have, max(_ACCESS_OF_VERSION))]
    attributes = struct.pack("=QQQ", access, _BOTH_NETWORK_RIGHTS * (have >= 4), _BOTH_SCOPES * (have >= 6))
    size = 8 if have < 4 else 16 if have < 6 else 24
    ruleset = libc().syscall(_CREATE, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock is refused by this kernel")
    for paths, rights in ((files, _READ_FILE), (trees, _READ_FILE | _READ_DIR), (folders, _READ_DIR)):
        for path in paths:
            _allow(ruleset, path, rights)
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if libc().syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, place), 0):
            raise OSError(ctypes.get_errno(), "Landlock refuses a rule", path)
    finally:
        os.close(place)


def restrict_self(ruleset: int) -> None:
    """Put the rules on this process, for good.

    Raises:
        OSError: the kernel refuses.
    """
    if libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc().syscall(_RESTRICT, ruleset, 0):
        raise OSError(ctypes.get_errno(), "Landlock is refused by this kernel")
