from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.readers import read_directory
from megatron.neox.corpus.tree import Tree
from megatron.neox.errors import InputError

CODE = b"def f(x):\n\treturn x\n"


def write(root: Path, files: dict[str | bytes, bytes]) -> None:
    for name, data in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


def read(root: Path, **options: object) -> tuple[dict[str, bytes], dict[str, int]]:
    tally = Tally()
    documents = {d.name: d.data for d in read_directory(root, tally, **options)}  # pyright: ignore[reportArgumentType]
    return documents, dict(tally.skipped)


@pytest.mark.timeout(20)
def test_links_pipes_sockets_and_version_control_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write(tmp_path, {"secret.py": b"outside\n", "tree/a/ok.py": CODE, "tree/.git/refs/branch.py": b"0123\n"})
    (root / "in.py").symlink_to("a/ok.py")
    (root / "out.py").symlink_to("../secret.py")
    (root / "broken.py").symlink_to("nowhere")
    (root / "self.py").symlink_to("self.py")
    (root / "loop").symlink_to(".")
    (root / "elsewhere").symlink_to(tmp_path)
    (root / "folder.py").mkdir()
    os.mkfifo(root / "pipe.py")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket.py"))
        documents, skipped = read(root)
    assert documents == {"a/ok.py": CODE}
    assert skipped == {"symlink": 6, "special_file": 2, "version_control": 1}


def test_a_file_swapped_for_a_link_or_a_pipe_is_not_opened(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write(tmp_path, {"outside/x.py": b"secret\n", "tree/a/x.py": CODE, "tree/b.py": CODE, "tree/c.py": CODE})
    tally = Tally()
    with Tree(root, tally) as tree:
        assert tree.paths() == [b"a/x.py", b"b.py", b"c.py"]
        (root / "a").rename(tmp_path / "moved")
        (root / "a").symlink_to("../outside")
        (root / "b.py").unlink()
        os.mkfifo(root / "b.py")
        (root / "c.py").unlink()
        assert [tree.read(path) for path in (b"a/x.py", b"b.py", b"c.py")] == [None, None, None]
    assert tally.skipped == {"unreadable": 2, "special_file": 1}


def test_names_of_any_bytes_are_read_and_told(tmp_path: Path) -> None:
    names: list[str | bytes] = [
        b"bad\xff.py",
        "new\nline.py",
        "tab\t.py",
        "q'uote $(x).py",
        "-rf.py",
        "日本.py",
    ]
    write(tmp_path, dict.fromkeys(names, CODE))
    documents, skipped = read(tmp_path)
    assert sorted(os.fsencode(name) for name in documents) == sorted(os.fsencode(name) for name in names)
    assert skipped == {}


def test_order_depends_on_names_and_seed_alone(tmp_path: Path) -> None:
    names: list[str | bytes] = [f"{letter}/{number}.py" for letter in "ab" for number in range(4)]
    write(tmp_path / "one", dict.fromkeys(names, CODE))
    write(tmp_path / "two", dict.fromkeys(reversed(names), CODE))
    assert list(read(tmp_path / "one")[0]) == names
    shuffled = list(read(tmp_path / "one", seed=1)[0])
    assert shuffled == ["a/3.py", "b/2.py", "a/1.py", "b/1.py", "b/3.py", "a/0.py", "b/0.py", "a/2.py"]
    assert list(read(tmp_path / "two", seed=1)[0]) == shuffled
    assert list(read(tmp_path / "one", seed=2)[0]) != shuffled


def test_endings_names_and_sizes_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": CODE, "UPPER.PY": CODE, "c.txt": CODE, "skip/d.py": CODE, "big.py": b"x" * 101})
    documents, skipped = read(tmp_path, extensions=[".py"], exclude=["skip"], max_bytes=100)
    assert sorted(documents) == ["UPPER.PY", "a.py"]
    assert skipped == {"other_extension": 1, "excluded": 1, "too_big": 1}


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """Root may read everything, so it becomes nobody for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_what_may_not_be_read_is_counted(tmp_path: Path) -> None:
    write(tmp_path, {"no.py": CODE, "closed/a.py": CODE, "ok.py": CODE})
    (tmp_path / "no.py").chmod(0)
    (tmp_path / "closed").chmod(0)
    tally = Tally()
    with Tree(tmp_path, tally) as tree:
        tmp_path.chmod(0o755)
        with without_roots_rights():
            paths = tree.paths()
            assert [tree.read(path) for path in paths] == [None, CODE]
    (tmp_path / "closed").chmod(0o755)
    assert paths == [b"no.py", b"ok.py"]
    assert tally.skipped == {"unreadable": 2}


def test_very_deep_folders_are_read(tmp_path: Path) -> None:
    depth = 60  # of 100 characters each: more than a path may have
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("deep.py", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    documents, skipped = read(tmp_path)
    shutil.rmtree(tmp_path / ("d" * 100))
    assert list(documents) == ["/".join(["d" * 100] * depth + ["deep.py"])]
    assert skipped == {}


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "absent"):
        with pytest.raises(InputError, match=f"cannot read the folder .*{name}"):
            read(tmp_path / name)
