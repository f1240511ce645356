"""Archives that want out of their folder, that lie, or that broke."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from megatron.neox.downloads.archive import unpack
from megatron.neox.errors import InputError


def member(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, size, link
    return made


def write(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportArgumentType]
        for one in members:
            archive.addfile(one, io.BytesIO(b"x" * one.size) if one.isreg() else None)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_files_and_folders_are_unpacked(tmp_path: Path, mode: str) -> None:
    plain = member("a/b.txt", size=3)
    plain.mode, plain.uid = 0o6777, 12345
    archive = write(tmp_path / "t.tar", member("a", tarfile.DIRTYPE), plain, member("c", size=1), mode=mode)
    unpack(archive, tmp_path / "out", limit_bytes=4)
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"xxx"
    assert (tmp_path / "out" / "c").read_bytes() == b"x"
    status = (tmp_path / "out" / "a" / "b.txt").stat()
    assert (status.st_mode & 0o7022, status.st_uid) == (0, os.getuid())
    assert sorted(os.listdir(tmp_path)) == ["out", "t.tar"]


HOSTILE = {
    "absolute": ([member("/etc/passwd")], "leads out of the folder"),
    "parent": ([member("a/../../b")], "leads out of the folder"),
    "nul": ([member("a/\0b" + "c" * 120)], "leads out of the folder"),
    "backslash": ([member("..\\b")], "leads out of the folder"),
    "symlink": ([member("a", tarfile.SYMTYPE, link="..")], "it is a link (to '..')"),
    "symlink and a file through it": (
        [member("a", tarfile.SYMTYPE, link="/tmp"), member("a/b", size=1)],
        "it is a link (to '/tmp')",
    ),
    "hard link": ([member("a", tarfile.LNKTYPE, link="/etc/passwd")], "it is a link"),
    "device": ([member("a", tarfile.CHRTYPE)], "neither a file nor a folder"),
    "pipe": ([member("a", tarfile.FIFOTYPE)], "neither a file nor a folder"),
    "twice": ([member("a", size=1), member("./a", size=1)], "another member has that name already"),
    "file as folder": ([member("a", size=1), member("a/b", size=1)], "another member has that name already"),
    "folder as file": ([member("a/b", size=1), member("a", size=1)], "another member has that name already"),
    "too much": ([member("a", size=60), member("b", size=60)], "have more than 100 bytes"),
}


@pytest.mark.parametrize(("members", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_could_do_harm_is_refused_whole(
    tmp_path: Path, members: list[tarfile.TarInfo], message: str
) -> None:
    archive = write(tmp_path / "t.tar", member("harmless", size=1), *members)
    with pytest.raises(InputError, match="nothing of it was unpacked") as raised:
        unpack(archive, tmp_path / "out", limit_bytes=100)
    assert message in str(raised.value)
    assert os.listdir(tmp_path) == ["t.tar"]


def test_a_size_that_is_only_claimed_is_refused(tmp_path: Path) -> None:
    """A sparse file of an exabyte takes a kilobyte in the archive."""
    one = member("a")
    one.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a",
                       "GNU.sparse.realsize": str(10**18)}  # fmt: skip
    one.size = 512
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(one, io.BytesIO(b"1\n0\n512\n".ljust(512, b"\0")))
    with pytest.raises(InputError, match="have more than"):
        unpack(tmp_path / "t.tar", tmp_path / "out", limit_bytes=10**9)


def test_damage_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", member("a", size=5000), member("b", size=5000)).read_bytes()
    packed = gzip.compress(random.Random(1).randbytes(1000) + whole, mtime=0)
    damaged = {
        "cut": whole[:7000],
        "text": b"<html>" * 500,
        "empty": b"",
        "cut gzip": gzip.compress(whole, mtime=0)[:60],
        "bad gzip": packed[:500] + b"\0" * 100 + packed[600:],
        "long name": write(tmp_path / "long name", member("d" * 300)).read_bytes(),
        "no gzip": b"\x1f\x8b\x08nonsense",
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is not a whole tar archive"):
            unpack(tmp_path / name, tmp_path / "out", limit_bytes=10**6)
    assert sorted(os.listdir(tmp_path)) == sorted(["whole", *damaged])


def test_what_a_killed_run_left_is_cleared_and_what_exists_is_not_replaced(tmp_path: Path) -> None:
    archive = write(tmp_path / "t.tar", member("a", size=1))
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "old").touch()
    unpack(archive, tmp_path / "out", limit_bytes=100)
    assert os.listdir(tmp_path / "out") == ["a"]
    with pytest.raises(OSError, match="not empty"):
        unpack(archive, tmp_path / "out", limit_bytes=100)
    assert sorted(os.listdir(tmp_path)) == ["out", "t.tar"]
