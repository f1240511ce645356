"""A tar from a stranger, unpacked into a new folder that it cannot leave.

Everything is looked at before anything is written. Beyond `tarfile`'s own filter "data" (PEP 706), which takes away
ownership, odd permissions and ways out, an archive is refused for what the files that this project fetches never
hold: links, devices, a name twice, more bytes than were announced.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from megatron.neox.errors import InputError, ResourceError

_MOST_MEMBERS = 100_000
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, UnicodeError)


def unpack(
    archive: Path, folder: Path, *, limit_bytes: int, check: Callable[[Path], object] = lambda _: None
) -> None:
    """Unpack a tar, compressed or not, into `folder`, which must not exist and appears when all is in it.

    Args:
        limit_bytes: most bytes that all files together may have.
        check: looks at what was unpacked before it takes its name; what it raises leaves nothing behind.

    Raises:
        InputError: the archive is damaged, or holds what is refused; nothing of it stays.
        ResourceError: the disk is full; nothing of it stays.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    partial.mkdir(parents=True)
    try:
        with tarfile.open(archive) as opened:
            members = _checked(opened, archive, limit_bytes)
            opened.extractall(partial, members, filter="data")
        check(partial)
        _sync(partial)
        os.rename(partial, folder)
    except _DAMAGE as error:
        raise InputError(f"{archive} is not a whole tar archive: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"no space left on the disk while unpacking {archive}; make room") from error
        if error.errno in (None, errno.ENAMETOOLONG):  # none: gzip's own, not the system's
            raise InputError(f"{archive} is not a whole tar archive: {error}") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _checked(opened: tarfile.TarFile, archive: Path, limit_bytes: int) -> list[tarfile.TarInfo]:
    """All members, each of them harmless.

    Raises:
        InputError: the first one that is not.
    """
    members: list[tarfile.TarInfo] = []
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    num_bytes = 0
    for member in opened:
        path = PurePosixPath(member.name)
        num_bytes += member.size
        if fault := _fault(member, path):
            raise _refusal(archive, member.name, fault)
        if path in files or (member.isreg() and path in folders) or files.intersection(path.parents):
            raise _refusal(archive, member.name, "another member has that name already")
        if num_bytes > limit_bytes:
            raise _refusal(archive, member.name, f"with it the files have more than {limit_bytes} bytes")
        if len(members) == _MOST_MEMBERS:
            raise _refusal(archive, member.name, f"it is one more than {_MOST_MEMBERS} members")
        (files if member.isreg() else folders).add(path)
        folders.update(path.parents)
        members.append(member)
    return members


def _fault(member: tarfile.TarInfo, path: PurePosixPath) -> str | None:
    """What is wrong with a member by itself."""
    if path.is_absolute() or ".." in path.parts or any(sign in member.name for sign in "\\\0"):
        return "its name leads out of the folder"
    if member.islnk() or member.issym():
        return f"it is a link (to {member.linkname!r})"
    if not (member.isreg() or member.isdir()):
        return "it is neither a file nor a folder"
    return "its size is negative" if member.size < 0 else None


def _refusal(archive: Path, name: str, fault: str) -> InputError:
    return InputError(f"{archive} is refused, and nothing of it was unpacked: {name!r}: {fault}")


def _sync(folder: Path) -> None:
    """Bring the files to the disk, so that a name never stands for content that a power cut took."""
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
