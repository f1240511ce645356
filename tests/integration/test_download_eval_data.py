"""tools/download_eval_data.py against a server that breaks, lies, or sends what must not be unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron.neox.downloads.evaluation_sets import LANGUAGES
from megatron.neox.evaluation.languages import LANGUAGES as EVALUATED
from tests.integration.origin import Origin, serving
from tests.integration.training_case import ROOT

NAME = "unseen_test_sets.tar.gz"
FILES = {
    "C#/ann/tool/a.cs": b"class A {}\n",
    "Python/bob/web/b.py": random.Random(3).randbytes(300_000),  # does not compress
    "Python/bob/web/empty.py": b"",
}


def tar_of(files: dict[str, bytes], prefix: str = "", *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return buffer.getvalue()


def link_out() -> tarfile.TarInfo:
    member = tarfile.TarInfo("Python/out")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc"
    return member


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving(Origin()) as made:
        made.release(NAME, tar_of(FILES, "Code-sampled100/"))
        yield made


def download(origin: Origin, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "download_eval_data.py"), "--mirror", origin.url,
         "--retry-wait", "0.01", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def found(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_languages_are_those_that_are_evaluated() -> None:
    assert sorted(LANGUAGES) == sorted(EVALUATED.values())


def test_the_test_sets_lie_where_the_tasks_look_for_them(origin: Origin, tmp_path: Path) -> None:
    """A connection that breaks is resumed; a second run fetches nothing."""
    origin.faults = [100_000]
    done = download(origin, tmp_path)
    assert done.returncode == 0, done.stderr
    assert found(tmp_path / "evaldata") == {f"Code-sampled100/{name}": data for name, data in FILES.items()}
    assert "evaldata/Code-sampled100 holds: C# 1, Python 2\n" in done.stdout
    assert "resumed at byte 100000" in done.stderr
    origin.seen.clear()
    again = download(origin, tmp_path)
    assert (again.returncode, origin.seen) == (0, [])
    assert "was there already; it holds: C# 1, Python 2" in again.stdout


def test_the_archive_can_stay_and_have_nothing_around_it(origin: Origin, tmp_path: Path) -> None:
    content = tar_of(FILES)
    origin.release(NAME, content)
    done = download(origin, tmp_path, "--output", "sets", "--keep-archive")
    assert done.returncode == 0, done.stderr
    assert found(tmp_path) == {NAME: content, **{f"sets/{name}": data for name, data in FILES.items()}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_of({**FILES, "../../evil.py": b"x"}), "'../../evil.py': its name leads out of the folder"),
        (tar_of(FILES, "/tmp/"), "its name leads out of the folder"),
        (tar_of(FILES, "", link_out()), "'Python/out': it is a link"),
        (tar_of(FILES)[:200_000], "is not a whole tar archive"),
        (tar_of({"readme": b"x"}), "the archive holds no folder of a language; it holds readme"),
    ],
    ids=["dots", "absolute", "link", "cut", "other"],
)
def test_an_archive_that_is_refused_leaves_nothing(
    origin: Origin, tmp_path: Path, content: bytes, message: str
) -> None:
    origin.release(NAME, content)
    done = download(origin, tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert os.listdir(tmp_path) == []


def test_another_file_than_the_released_one(origin: Origin, tmp_path: Path) -> None:
    origin.release(NAME, tar_of(FILES), checksum=f"md5:{'0' * 32}")
    done = download(origin, tmp_path)
    assert (done.returncode, "what arrived is not the file that was released" in done.stderr) == (1, True)
    assert os.listdir(tmp_path) == []
    assert download(origin, tmp_path, "--no-checksum").returncode == 0


def test_a_folder_without_languages_is_no_test_set(origin: Origin, tmp_path: Path) -> None:
    """As a download leaves behind that makes the folder first."""
    (tmp_path / "evaldata" / "Code-sampled100").mkdir(parents=True)
    done = download(origin, tmp_path)
    assert (done.returncode, origin.seen) == (2, [])
    assert "evaldata/Code-sampled100 is there, and holds no file of C, C#" in done.stderr


def index_of(origin: Origin, record: str, content: bytes, checksum: str | None = None) -> None:
    """Let a record hold index.zip."""
    entry = {
        "key": "index.zip",
        "size": len(content),
        "checksum": checksum or f"md5:{hashlib.md5(content).hexdigest()}",
    }
    origin.files[f"/api/records/{record}"] = json.dumps({"files": [entry]}).encode()
    origin.files[f"/record/{record}/files/index.zip"] = content


@pytest.mark.parametrize("record", ["6341643", "6363556"])
def test_the_index_is_fetched_from_the_record_that_has_it(
    origin: Origin, tmp_path: Path, record: str
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "index.txt", f"C__a__b__c.c\t{hashlib.sha256(b'int x;').hexdigest()}\n" + "\n" * 300_000
        )
    index_of(origin, record, buffer.getvalue())
    if record == "6341643":
        origin.faults = ["", 100_000]  # the record answers; then the connection breaks, and is resumed
    done = download(origin, tmp_path, "index")
    assert done.returncode == 0, done.stderr
    assert found(tmp_path) == {"evaldata/index.zip": buffer.getvalue()}
    assert "next: tools/collect/in_training_set.py evaldata/index.zip PATH" in done.stdout
    assert ("asking the other record" in done.stderr) == (record == "6363556")
    assert ("resumed at byte 100000" in done.stderr) == (record == "6341643")
    assert "was there already" in download(origin, tmp_path, "index").stdout
    (tmp_path / "a.c").write_bytes(b"int x;")
    asked = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "collect" / "in_training_set.py"), "evaldata/index.zip", "a.c"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert asked.stdout == "seen\ta.c\n1 files: 1 seen, 0 seen_line_ends, 0 unseen\n"


def test_an_index_that_no_record_has_or_that_is_another(origin: Origin, tmp_path: Path) -> None:
    done = download(origin, tmp_path, "index")
    assert (done.returncode, found(tmp_path)) == (2, {})
    assert "lists no index.zip; it lists unseen_test_sets.tar.gz" in done.stderr
    index_of(origin, "6341643", b"something", checksum=f"md5:{'0' * 32}")
    done = download(origin, tmp_path, "index", "--output", "i.zip")
    assert (done.returncode, found(tmp_path)) == (2, {})
    assert "what arrived is not the file that was released" in done.stderr
