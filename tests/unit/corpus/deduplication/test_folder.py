from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from megatron.neox.corpus.deduplication.folder import deduplicate_folder, find_copies, hash_files
from megatron.neox.corpus.document import Tally
from megatron.neox.errors import InputError, OutputError

CODE = b"def f(x):\n\treturn x\n"
FILES: dict[bytes, bytes] = {
    b"C/a__b__h.h": CODE,
    b"C++/a__b__h.h": CODE,
    b"C/own.c": CODE[::-1],
    b"Python/bad\xff.py": CODE,
    b"Python/new\nline.py": b"x" * 2_000_000,
    b"Python/two.py": b"x" * 2_000_000,
    b"Python/one.py": b"x" * 1_999_999,
    b".git/refs/x.py": CODE,
}


def write_tree(root: Path) -> Path:
    for name, data in FILES.items():
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(data)
    (root / "C" / "link.c").symlink_to("a__b__h.h")
    os.mkfifo(root / "C" / "pipe.c")
    return root


def names(root: Path) -> set[bytes]:
    return {os.fsencode(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


LIST = (
    "C/a__b__h.h\tC++/a__b__h.h\nPython/bad\\xff.py\tC++/a__b__h.h\nPython/two.py\tPython/new\\x0aline.py\n"
)


def test_copies_are_told_and_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(tmp_path / "tree")
    before = names(root)
    report = deduplicate_folder(root, None)
    assert capsys.readouterr().out == LIST
    assert "kept: 4 files, 4.00 MB\nleft out, duplicate: 3 files, 2.00 MB\n" in report
    assert "left out, special_file: 1 files" in report
    assert report.endswith("nothing was deleted; --in-place does\n")
    assert names(root) == before


def test_in_place_the_first_path_stays(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree")
    report = deduplicate_folder(root, tmp_path / "list", is_in_place=True, workers=2)
    assert (tmp_path / "list").read_text() == LIST
    gone = {b"C/a__b__h.h", b"Python/bad\xff.py", b"Python/two.py"}
    assert names(root) == set(FILES) - gone  # the link now leads nowhere
    assert "nothing was deleted" not in report
    with pytest.raises(OutputError, match="list exists already"):
        deduplicate_folder(root, tmp_path / "list")
    assert not find_copies(root, Tally()).copies


def test_what_changed_after_it_was_read_is_not_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / name).write_bytes(CODE)
    from megatron.neox.corpus.deduplication import folder

    b, c = find_copies(root, Tally()).copies
    (root / "b").write_bytes(CODE[::-1])
    assert not folder._delete(root, b)
    assert "has changed meanwhile" in caplog.text
    assert not folder._delete(root, dataclasses.replace(b, kept=None))  # one that an index holds
    assert folder._delete(root, c)
    (root / "a").unlink()
    (root / "c").symlink_to("b")
    assert not folder._delete(root, c)
    assert sorted(os.listdir(root)) == ["b", "c"]


def test_an_index_of_what_is_known(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree")
    digest = dict(hash_files(root, [b"C/own.c"]))[b"C/own.c"]
    assert digest is not None
    (tmp_path / "index").write_text(f"C__x__y__z.c\t{digest.hex()}\n")
    found = find_copies(root, Tally(), against=[tmp_path / "index"])
    assert [(copy.path, copy.reason) for copy in found.copies if copy.reason == "in_index"] == [
        (b"C/own.c", "in_index")
    ]
    assert len(found.copies) == 4


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the folder"):
        deduplicate_folder(tmp_path / "absent", None)


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "folders").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        deduplicate_folder(tmp_path, None)
