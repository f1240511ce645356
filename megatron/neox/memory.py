"""What this process holds, and giving back to the system what it holds no more."""

from __future__ import annotations

import ctypes
import resource
from functools import cache
from pathlib import Path
from typing import Any

_STATM = Path("/proc/self/statm")
_M_MMAP_THRESHOLD = -3  # of malloc.h
_LARGE_BLOCK_BYTES = 1 << 20


def resident_bytes() -> int:
    """Bytes of this process that are in memory; 0 where the system does not tell, which is without Linux' /proc."""
    try:
        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def trim_heap() -> None:
    """Give freed memory back to the system; glibc keeps small pieces of it, and their sum grows from use to use."""
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def spare_large_blocks() -> None:
    """Give each block of a mebibyte or more back to the system as soon as it is freed, from now on.

    Otherwise glibc learns from the first large block that it frees to keep those of up to 32 MiB in its heap, where
    a table that doubles leaves holes that the next one does not fit into.
    """
    if (set_option := _of_glibc("mallopt")) is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


@cache
def _of_glibc(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # not glibc
        return None
