"""tools/download_checkpoint.py against a server that breaks, stalls, changes its mind, or lies."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.origin import RECORD, Origin, serving
from tests.integration.training_case import ROOT

NAME = "160M-150K"
TAR = f"{NAME}.tar"
LAYERS = [0, *range(2, 14), 15, 16]
TOOL = [sys.executable, str(ROOT / "tools" / "download_checkpoint.py")]
VOCABULARY = "/VHellendoorn/Code-LMs/570feba44e72a165cbd82d089fd8a9a14414d1d4/Data"


def contents(*, latest: bool = True) -> dict[str, bytes]:
    """What lies in checkpoints/ in the end; 600 kB in all."""
    noise = random.Random(5)
    files = {
        f"global_step150000/layer_{number:02d}-model_00-model_states.pt": noise.randbytes(40_000)
        for number in LAYERS
    }
    files["global_step150000/mp_rank_00_model_states.pt"] = b"state"
    files["configs/small.yml"] = b'{"num-layers": 12}\n'
    files["configs/local_setup.yml"] = b'{"load": "checkpoints"}\n'
    if latest:
        files["latest"] = b"global_step150000"
    return files


def tar_of(files: dict[str, bytes], prefix: str = "", *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return buffer.getvalue()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving(Origin()) as made:
        made.release(TAR, tar_of(contents()))
        yield made


def command(origin: Origin, *arguments: str) -> list[str]:
    return [*TOOL, "--mirror", origin.url, "--retry-wait", "0.01", *(arguments or (NAME,))]


def environment() -> dict[str, str]:
    """Without proxies, which would stand between the command and this machine."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def download(origin: Origin, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(origin, *arguments), cwd=cwd, env=environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def found(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(done: subprocess.CompletedProcess[str], cwd: Path, code: int, *messages: str) -> None:
    assert done.returncode == code, done.stderr
    for message in messages:
        assert message in done.stderr
    assert os.listdir(cwd) == []


@pytest.mark.parametrize("prefix", ["", "./", "2022/polycoder/"])
def test_a_model_lies_where_its_configs_look_for_it(origin: Origin, tmp_path: Path, prefix: str) -> None:
    origin.release(TAR, tar_of(contents(), prefix))
    done = download(origin, tmp_path)
    assert done.returncode == 0, done.stderr
    assert found(tmp_path / "checkpoints") == contents()
    assert "checkpoints/global_step150000 is complete" in done.stdout
    assert (
        "./deepy.py generate.py configs/text_generation.yml checkpoints/configs/local_setup.yml "
        "checkpoints/configs/small.yml\n"
    ) in done.stdout
    assert f"downloading {TAR}: 0." in done.stderr
    assert "(100.0%)" in done.stderr

    origin.seen.clear()
    again = download(origin, tmp_path)
    assert (again.returncode, origin.seen) == (0, [])
    assert "was complete already; nothing was fetched" in again.stdout
    assert found(tmp_path / "checkpoints") == contents()


def test_what_the_archive_lacks_is_not_invented_and_what_exists_is_kept(
    origin: Origin, tmp_path: Path
) -> None:
    files = contents(latest=False)
    del files["global_step150000/layer_16-model_00-model_states.pt"]
    origin.release(TAR, tar_of(files))
    setup = tmp_path / "small" / "configs" / "local_setup.yml"
    setup.parent.mkdir(parents=True)
    setup.write_text("mine")
    done = download(origin, tmp_path, NAME, "--output", "small", "--keep-archive")
    assert done.returncode == 0, done.stderr
    assert found(tmp_path / "small") == {**files, "configs/local_setup.yml": b"mine", TAR: tar_of(files)}
    assert "not what was expected: 1 of its files are absent or empty (layer_16-model_00-mod" in done.stdout
    assert "kept small/configs/local_setup.yml as it is" in done.stderr
    assert done.stdout.endswith("small/configs/small.yml --set load=small\n")


def test_half_a_checkpoint_is_not_taken_for_one(origin: Origin, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "global_step150000"
    folder.mkdir(parents=True)
    for number in LAYERS[:-1]:
        (folder / f"layer_{number:02d}-model_00-model_states.pt").write_bytes(b"x")
    done = download(origin, tmp_path)
    assert done.returncode == 2
    assert "1 of its files are absent or empty (layer_16-model_00-model_states.pt first)" in done.stderr
    assert origin.seen == []
    (folder / "layer_16-model_00-model_states.pt").write_bytes(b"x")
    assert "was complete already" in download(origin, tmp_path).stdout
    # A larger model has all the names of a smaller one.
    (folder / "layer_17-model_00-model_states.pt").write_bytes(b"x")
    done = download(origin, tmp_path)
    assert (done.returncode, "it has 1 files more (layer_17-model_00-mod" in done.stderr) == (2, True)


def test_broken_connections_are_resumed(origin: Origin, tmp_path: Path) -> None:
    origin.files["/records/far"] = origin.files[f"/record/6363556/files/{TAR}"]
    origin.files[f"/record/6363556/files/{TAR}"] = b"-> /records/far"
    # Each hop of the redirection is a request: "" lets it pass.
    origin.faults = ["", 100_000, "503", "", 0, "", 200_000, "", "stall", "", 1]
    done = download(origin, tmp_path, NAME, "--timeout", "0.5")
    assert done.returncode == 0, done.stderr
    assert found(tmp_path / "checkpoints") == contents()
    assert "503 Service Unavailable; retry 2 of 6" in done.stderr
    assert "resumed at byte 100000" in done.stderr
    assert "resumed at byte 300001" in done.stderr
    assert "the connection broke" in done.stderr
    taken = [seen for seen in origin.seen if seen.path == "/records/far"]
    assert [seen.range for seen in taken] == [
        None, "bytes=100000-", "bytes=100000-", "bytes=300000-", "bytes=300001-",
    ]  # fmt: skip
    assert [seen.status for seen in taken] == [200, 206, 206, 206, 206]
    assert all(seen.if_range for seen in taken[1:])


def test_a_server_that_grants_no_range_or_another_starts_anew(origin: Origin, tmp_path: Path) -> None:
    origin.faults = [300_000, "whole", 300_000, "other"]
    for output in ("whole", "other"):
        done = download(origin, tmp_path, NAME, "--output", output)
        assert done.returncode == 0, done.stderr
        assert found(tmp_path / output) == contents()
        assert ("it starts anew" if output == "whole" else "sends another range") in done.stderr


def test_retries_end(origin: Origin, tmp_path: Path) -> None:
    origin.has_ranges = False
    origin.always = 1000
    done = download(origin, tmp_path, NAME, "--retries", "2")
    assert done.returncode == 1
    assert "given up at attempt 3" in done.stderr
    assert origin.ranges() == [None, "bytes=1000-", "bytes=1000-"]
    assert set(found(tmp_path / "checkpoints")) == {f"{TAR}.part", f"{TAR}.part.etag"}


@pytest.mark.parametrize(
    ("has_etags", "minds_versions", "message"),
    [
        (True, True, "it starts anew"),
        (True, False, "the file has changed, or"),
        (False, False, "it is fetched once more from its start"),
    ],
)
def test_a_file_that_changes_on_the_way_is_fetched_anew(
    origin: Origin, tmp_path: Path, has_etags: bool, minds_versions: bool, message: str
) -> None:
    new = tar_of({**contents(), "configs/small.yml": b'{"num-layers": 21}\n'})
    old = b"\0" + origin.files[f"/record/6363556/files/{TAR}"][1:]
    origin.release(TAR, new)
    origin.has_etags, origin.minds_versions = has_etags, minds_versions
    origin.files[f"/record/6363556/files/{TAR}"] = old
    origin.faults = [400_000, lambda: origin.release(TAR, new)]
    done = download(origin, tmp_path)
    assert done.returncode == 0, done.stderr
    assert found(tmp_path / "checkpoints")["configs/small.yml"] == b'{"num-layers": 21}\n'
    assert message in done.stderr


def test_what_is_not_the_released_file_is_removed(origin: Origin, tmp_path: Path) -> None:
    content = origin.files[f"/record/6363556/files/{TAR}"]
    origin.release(TAR, content, checksum="md5:" + "0" * 32)
    assert_refused(download(origin, tmp_path), tmp_path, 1, "ResourceError\n", "its md5 is", "it was removed")
    origin.release(TAR, content, size=len(content) + 1)
    assert_refused(download(origin, tmp_path), tmp_path, 1, f"holds {len(content)} bytes, and")
    origin.release("other.tar", content)
    assert_refused(download(origin, tmp_path), tmp_path, 2, f"lists no {TAR}; it lists other.tar")


def test_without_the_record_nothing_is_fetched_unless_asked_by_name(origin: Origin, tmp_path: Path) -> None:
    for answer in (None, b"<html>", b"{}", json.dumps({"files": [{"key": TAR}]}).encode()):
        origin.files.pop(RECORD, None)
        if answer is not None:
            origin.files[RECORD] = answer
        done = download(origin, tmp_path)
        assert_refused(
            done, tmp_path, 1, "the record cannot be asked", "--no-checksum", f"{origin.url}{RECORD}"
        )
        assert origin.ranges() == []
    done = download(origin, tmp_path, NAME, "--no-checksum")
    assert done.returncode == 0
    assert "nothing tells whether it is what was released" in done.stderr
    assert found(tmp_path / "checkpoints") == contents()


def test_a_stranger_in_place_of_the_server_leaves_nothing(origin: Origin, tmp_path: Path) -> None:
    origin.files[f"/record/6363556/files/{TAR}"] = b"<html>Please log in</html>"
    done = download(origin, tmp_path, NAME, "--no-checksum")
    assert_refused(done, tmp_path, 2, "InputError\n", "is not a whole tar archive")
    link = tarfile.TarInfo("global_step150000/away")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    for archive, message in {
        tar_of(contents(), "", link): "'global_step150000/away': it is a link (to '/etc')",
        tar_of({"../latest": b""}): "its name leads out of the folder",
        tar_of({"readme": b""}): "holds no folder global_stepN; it holds readme",
    }.items():
        origin.release(TAR, archive)
        assert_refused(download(origin, tmp_path), tmp_path, 2, message)


def test_a_killed_download_goes_on_where_it_was(origin: Origin, tmp_path: Path) -> None:
    origin.slow_seconds = 2.0  # so that it goes on while a second run starts, however busy the machine
    process = subprocess.Popen(
        command(origin), cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    part = tmp_path / "checkpoints" / f"{TAR}.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    second = download(origin, tmp_path)
    assert (second.returncode, "another download into checkpoints is running" in second.stderr) == (2, True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    size = part.stat().st_size
    assert 0 < size < len(origin.files[f"/record/6363556/files/{TAR}"])
    origin.slow_seconds = 0
    # Had it been killed while unpacking, a folder would be left as well.
    (tmp_path / "checkpoints" / f".{NAME}.unpacked.partial" / "configs").mkdir(parents=True)
    done = download(origin, tmp_path)
    assert done.returncode == 0, done.stderr
    assert origin.ranges()[-1] == f"bytes={size}-"
    assert found(tmp_path / "checkpoints") == contents()


def test_a_run_that_was_killed_while_it_moved_files_is_finished(origin: Origin, tmp_path: Path) -> None:
    moved = {"configs/small.yml", "latest"}
    for name, content in contents().items():
        folder = tmp_path / "checkpoints" / ("" if name in moved else f".{NAME}.unpacked")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    done = download(origin, tmp_path)
    assert done.returncode == 0, done.stderr
    assert origin.seen == []
    assert found(tmp_path / "checkpoints") == contents()


def test_an_archive_that_wget_left_is_used_and_kept(origin: Origin, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    content = origin.files[f"/record/6363556/files/{TAR}"]
    (folder / TAR).write_bytes(content[:-9])
    done = download(origin, tmp_path)
    assert (done.returncode, f"rename it to {TAR}.part" in done.stderr) == (2, True)
    (folder / TAR).rename(folder / f"{TAR}.part")
    assert download(origin, tmp_path, NAME, "--keep-archive").returncode == 0
    assert origin.ranges() == [f"bytes={len(content) - 9}-"]
    assert found(folder) == {**contents(), TAR: content}


def test_a_disk_that_is_too_small_is_told_before_and_a_full_one_after(origin: Origin, tmp_path: Path) -> None:
    content = origin.files[f"/record/6363556/files/{TAR}"]
    origin.release(TAR, content, size=10**18)
    done = download(origin, tmp_path)
    assert_refused(done, tmp_path, 1, f"{TAR} needs 2000000000.00 GB in", "GB are free; make room")
    assert origin.ranges() == []
    origin.release(TAR, content)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"{TAR}.part").symlink_to("/dev/full")
    done = download(origin, tmp_path)
    assert done.returncode == 1
    assert "ResourceError\nno space left on the disk while writing" in done.stderr


def test_the_vocabulary_is_the_pinned_one(origin: Origin, tmp_path: Path, polycoder: Path) -> None:
    names = ("code-vocab.json", "code-merges.txt")
    released = {name: (polycoder / name).read_bytes() for name in names}
    origin.files |= {f"{VOCABULARY}/{name}": content for name, content in released.items()}
    origin.faults = [500_000]
    done = download(origin, tmp_path, "vocab")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "data/code-vocab.json\ndata/code-merges.txt\n"
    assert found(tmp_path / "data") == released
    origin.seen.clear()
    assert (download(origin, tmp_path, "vocab").returncode, origin.seen) == (0, [])

    (tmp_path / "data" / names[1]).write_text("#version\n")
    done = download(origin, tmp_path, "vocab")
    assert done.returncode == 2
    assert "OutputError\ndata/code-merges.txt is there already and is another file" in done.stderr
    assert (tmp_path / "data" / names[1]).read_text() == "#version\n"

    origin.files[f"{VOCABULARY}/{names[1]}"] = released[names[1]].replace(b"a", b"b")
    done = download(origin, tmp_path, "vocab", "--output", "elsewhere")
    assert (done.returncode, "its sha256 is" in done.stderr) == (1, True)
    assert set(found(tmp_path / "elsewhere")) == {names[0]}


def test_misuse_is_told_in_one_message(origin: Origin, tmp_path: Path) -> None:
    done = download(origin, tmp_path, "2-7b-150k")
    assert_refused(
        done, tmp_path, 2, "InputError\nnothing is released as 2-7b-150k", "known: 2-7B-150K, 2-7B-100K"
    )
    assert "did you mean 160M-150K?" in download(origin, tmp_path, "160M").stderr
    (tmp_path / "file").touch()
    done = download(origin, tmp_path, NAME, "--output", "file")
    assert (done.returncode, "cannot write file" in done.stderr) == (2, True)
    for output in ("/proc/nowhere", "a" * 300):
        done = download(origin, tmp_path, NAME, "--output", output)
        assert (done.returncode, f"cannot write {output}: " in done.stderr) == (2, True)
    done = download(origin, tmp_path, NAME, "--mirror", "nowhere")
    assert (done.returncode, "cannot be fetched" in done.stderr) == (1, True)
    done = download(origin, tmp_path, NAME, "--retries", "-1")
    assert (done.returncode, "--retries and --retry-wait cannot be negative" in done.stderr) == (2, True)
