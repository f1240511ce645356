"""The index of a corpus: read, written, asked."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.index import index as corpus_index
from megatron.neox.corpus.index import writer as index_writer
from megatron.neox.corpus.index.index import (
    are_in,
    file_hashes,
    find_seen,
    index_name,
    read_digests,
    split_name,
)
from megatron.neox.corpus.index.training_set import look_up
from megatron.neox.corpus.index.writer import write_index
from megatron.neox.corpus.stages.shards import SourceFile, escape_path, new_shard, shard_name
from megatron.neox.errors import InputError, OutputError


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


SEEN, UNSEEN = sha256(b"x = 1\n"), sha256(b"y = 2\n")
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
    assert find_seen(path, set()) == set()


@pytest.mark.parametrize(
    "text",
    [
        f"\t{SEEN}\n",
        f"a\tb\t{SEEN.upper()}",
        f"\n  \n{'x' * 200}\t{SEEN}\r\n\r\n",
        f"caf\u00e9\t{'0' * 64}\n\na\t{SEEN}\n",
    ],
    ids=["no name", "a tab in the name", "blank lines and CRLF", "not ASCII"],
)
@pytest.mark.parametrize("block", [1, 7, 70, 1 << 20])
def test_lines_of_many_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, block: int) -> None:
    monkeypatch.setattr(corpus_index, "_BLOCK_BYTES", block)
    (tmp_path / "index").write_text(text, newline="")
    assert find_seen(tmp_path / "index", {SEEN, UNSEEN}) == {SEEN}


def test_two_hundred_thousand_lines(tmp_path: Path) -> None:
    chance = random.Random(3)
    digests = [chance.randbytes(32).hex() for _ in range(200_000)]
    lines = "".join(f"Go__org__project__{number}__x.go\t{digest}\n" for number, digest in enumerate(digests))
    path = zipped(tmp_path / "index.zip", lines)
    assert sum(len(found) for found in read_digests(path)) == 200_000
    wanted = {*chance.sample(digests, 500), *(chance.randbytes(32).hex() for _ in range(500))}
    assert find_seen(path, wanted) == wanted & set(digests)


def test_membership_looks_at_all_bytes() -> None:
    # Equal first eight bytes, and zeros at the end, which text of numpy loses.
    digests = np.frombuffer(b"".join(bytes(31) + bytes([last]) for last in range(4)), "S32")
    assert are_in(digests, digests[[0, 2]]).tolist() == [True, False, True, False]
    assert are_in(digests[:0], digests).tolist() == []


def test_line_ends_make_no_difference() -> None:
    unix, windows = sha256(b"a\nb\n"), sha256(b"a\r\nb\r\n")
    assert file_hashes(b"a\nb\n") == (unix, unix, windows)
    assert file_hashes(b"a\r\nb\r\n") == (windows, unix, windows)
    assert file_hashes(b"a\rb\r\n") == (sha256(b"a\rb\r\n"), unix, windows)


def damaged(tmp_path: Path) -> Path:
    path = zipped(tmp_path / "cut.zip", INDEX * 100)
    path.write_bytes(path.read_bytes()[:-30])
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (INDEX + "no tab\n", r"index:3: not a line of an index: b'no tab"),
        (INDEX + "\n" + "a" * 100 + "\n", r"index:4: not a line of an index: b'aaa"),
        (INDEX + "a__b\tdeadbeef\n", r"index:3: not a line of an index"),
        (INDEX + SEEN + "\n", r"index:3: not a line of an index"),
        (SEEN, r"index:1: not a line of an index"),
        (INDEX + f"a\t{'g' * 64}\n", r"index:3: not a line of an index"),
        ("\n", r"index holds no line"),
        ("", r"index holds no line"),
    ],
)
def test_what_is_no_index(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "index").write_text(text)
    with pytest.raises(InputError, match=message):
        find_seen(tmp_path / "index", {SEEN})


def test_an_index_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the index .*absent does not exist"):
        find_seen(tmp_path / "absent", set())
    with pytest.raises(InputError, match="is not a whole zip"):
        find_seen(damaged(tmp_path), {SEEN})


def test_a_small_zip_of_one_endless_line_is_refused_at_once(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.zip", INDEX + "a" * (40 << 20))
    with pytest.raises(InputError, match=r"index\.txt\):3: not a line of an index: b'aaa"):
        find_seen(path, {SEEN})


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "locked.zip", INDEX)
    data = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(header) + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be unpacked here"):
        find_seen(path, {SEEN})


def test_the_name_is_polycoders_where_that_says_which_file_it_is() -> None:
    assert (
        index_name("Python", "org/my-project", "src/a_b/main.py")
        == "Python__org__my-project__src__a_b__main.py"
    )
    assert index_name("Python", "o/p", "_a.py") == "Python__o__p___a.py"
    assert index_name("Python", "o/p", "pkg/__init__.py") == r"Python__o__p__pkg__\x5f_init\x5f_.py"


@pytest.mark.parametrize(
    "path",
    [b"a/b.py", b"a__b.py", b"x__y/z__w.py", b"a_/_b.py", b"a/__b.py", b"a__/b.py", b"a___b", b"_", b"__", b"_/_",
     b"bad\xff.py", b"new\nline.py", b"tab\tname.py", "日本.py".encode(), b"back\\x5fslash", b"-rf.py"],
)  # fmt: skip
def test_every_path_has_a_name_of_its_own(path: bytes) -> None:
    name = index_name("C#", "my_/_org_", escape_path(path))
    assert name.isprintable()
    assert split_name(name) == ("C#", "my_/_org_", path)


def row(path: str, text: str, language: str = "Python", repository: str = "org/project") -> SourceFile:
    data = text.encode()
    return SourceFile(repository, language, path, sha256(data), len(data), None, [], None, False, text)


def shards_of(folder: Path, *shards: list[SourceFile]) -> Path:
    folder.mkdir()
    for number, files in enumerate(shards):
        with new_shard(folder / shard_name(number)) as shard:
            for file in files:
                shard.write(file)
    return folder


@pytest.mark.parametrize("name", ["index.txt", "index.zip"])
def test_an_index_is_written_sorted_and_read_again(tmp_path: Path, name: str) -> None:
    files = [
        row("b.py", "x = 1\n"),
        row("a/b.py", "y = 2\n"),
        row("main.c", "z\n", "C"),
        row("a__b.py", "n\n"),
    ]
    shards = shards_of(tmp_path / "in", files[:2], [], files[2:])
    assert write_index(shards, tmp_path / name) == 4
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name) as archive:
            text = archive.read("index.txt").decode()
    else:
        text = (tmp_path / name).read_text()
    assert text == (
        f"C__org__project__main.c\t{sha256(b'z' + bytes([10]))}\n"
        f"Python__org__project__a\\x5f_b.py\t{sha256(b'n' + bytes([10]))}\n"
        f"Python__org__project__a__b.py\t{UNSEEN}\n"
        f"Python__org__project__b.py\t{SEEN}\n"
    )
    assert find_seen(tmp_path / name, {SEEN, "1" * 64}) == {SEEN}
    before = (tmp_path / name).read_bytes()
    with pytest.raises(OutputError, match=f"{name} exists already"):
        write_index(shards, tmp_path / name)
    write_index(shards, tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", name]


def test_many_shards_are_merged_in_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = shards_of(tmp_path / "in", *([row(f"{n * 7 % 11}.py", f"{n}\n")] for n in range(11)))
    write_index(shards, tmp_path / "one")
    monkeypatch.setattr(index_writer, "_MERGED_AT_ONCE", 3)
    write_index(shards, tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
    lines = (tmp_path / "one").read_text().splitlines()
    assert lines == sorted(lines)
    assert len(lines) == 11


def test_an_index_of_nothing_is_not_written(tmp_path: Path) -> None:
    with new_shard(tmp_path / shard_name(0)):
        pass
    with pytest.raises(InputError, match="holds no file, so that there is nothing to index"):
        write_index(tmp_path, tmp_path / "index.zip")
    assert [path.name for path in tmp_path.iterdir()] == [shard_name(0)]


def test_files_and_folders_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "index").write_text(f"a\t{SEEN}\nb\t{sha256(b'1' + bytes([13, 10]))}\n")
    folder = tmp_path / "src"
    (folder / "deep").mkdir(parents=True)
    for name, data in {"a": b"x = 1\n", "deep/b": b"x = 1\r\n", "deep/c": b"1\n", "d": b"x = 2\n"}.items():
        (folder / name).write_bytes(data)
    (folder / "link").symlink_to("a")
    tally = Tally()
    found = look_up(tmp_path / "index", [folder, folder / "d", folder / "a"], tally)
    assert [
        (Path(os.fsdecode(file.path)).relative_to(folder).as_posix(), file.verdict) for file in found
    ] == [
        ("a", "seen"),
        ("d", "unseen"),
        ("deep/b", "seen_line_ends"),
        ("deep/c", "seen_line_ends"),
        ("d", "unseen"),
        ("a", "seen"),
    ]
    assert tally.skipped == {"symlink": 1}
    with pytest.raises(InputError, match="nowhere is neither a file nor a folder"):
        look_up(tmp_path / "index", [tmp_path / "nowhere"], tally)
    with pytest.raises(InputError, match="src is a folder, not an index; give the file"):
        look_up(folder, [tmp_path / "index"], tally)


_ASK = """
import re, sys
from pathlib import Path
from megatron.neox.corpus.index.index import find_seen, read_digests
index = Path(sys.argv[1])
print(sum(map(len, read_digests(index))), len(find_seen(index, {"0" * 64})))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.long
def test_memory_does_not_follow_the_index(tmp_path: Path) -> None:
    """A process that reads two million lines, 240 MB in a zip, needs what one that reads 400,000 does."""
    peaks = []
    for num_parts in (4, 20):
        write_random_index(tmp_path / "index.zip", num_parts)
        done = subprocess.check_output([sys.executable, "-c", _ASK, str(tmp_path / "index.zip")], text=True)
        num_lines, num_seen, peak_kilobytes = map(int, done.split())
        assert (num_lines, num_seen) == (100_000 * num_parts, 0)
        peaks.append(peak_kilobytes)
    assert peaks[1] < 1.1 * peaks[0] < 150_000


def write_random_index(path: Path, num_parts: int) -> None:
    numbers = np.random.default_rng(0)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("index.txt", "w") as member,
    ):
        for part in range(num_parts):
            digests = numbers.bytes(32 * 100_000).hex()
            for n in range(100_000):
                name = f"Python__organization__project__src__package__{part}__{n}.py"
                member.write(f"{name}\t{digests[64 * n : 64 * n + 64]}\n".encode())
