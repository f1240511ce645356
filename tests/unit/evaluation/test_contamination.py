"""Files seen in training, by an index of hashes."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from megatron.neox.errors import InputError
from megatron.neox.evaluation.contamination import file_hashes, find_seen

SEEN, UNSEEN = hashlib.sha256(b"x = 1\n").hexdigest(), hashlib.sha256(b"y = 2\n").hexdigest()
INDEX = f"Python__ann__tools__a b__c.py\t{SEEN}\nC__carl__os__main.c\t{'0' * 64}\n"


def zipped(path: Path, text: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("folder")
        archive.writestr("folder/index.txt", text)
    return path


@pytest.mark.parametrize("kind", ["plain", "zip"])
def test_hashes_are_found(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "index"
    if kind == "zip":
        zipped(path, INDEX)
    else:
        path.write_text(INDEX)
    assert find_seen(path, {SEEN, UNSEEN}) == {SEEN}
    assert find_seen(path, {UNSEEN}) == set()


def test_line_ends_make_no_difference() -> None:
    assert file_hashes(b"x = 1\r\n") == (hashlib.sha256(b"x = 1\r\n").hexdigest(), SEEN)


def damaged(tmp_path: Path) -> Path:
    path = zipped(tmp_path / "cut.zip", INDEX * 100)
    path.write_bytes(path.read_bytes()[:-30])
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (INDEX + "no tab\n", r"index:3: not a line of an index: b'no tab"),
        (INDEX + "a__b\tdeadbeef\n", r"index:3: not a line of an index"),
        ("\n", r"index holds no line"),
    ],
)
def test_what_is_no_index(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "index").write_text(text)
    with pytest.raises(InputError, match=message):
        find_seen(tmp_path / "index", {SEEN})


def test_an_index_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"eval_contamination_index .*absent does not exist"):
        find_seen(tmp_path / "absent", set())
    with pytest.raises(InputError, match="is not a whole zip"):
        find_seen(damaged(tmp_path), {SEEN})
