"""tools/collect/collect_data.sh from a search to shards without copies, all servers on this machine."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.shards import SourceFile, find_shards, read_shard
from tests.integration.git_server import GitServer, git, make_repository, serving_git
from tests.integration.github_api import TOKEN, Api, answering, node, when
from tests.integration.training_case import ROOT

SCRIPT = ROOT / "tools" / "collect" / "collect_data.sh"
SHARED = "\n".join(f"int shared_{number}(void) {{ return {number}; }}" for number in range(30)).encode()


def source(number: int, language: str) -> bytes:
    word = {"C": "int f{0}(void) {{ return {0}; }}", "Go": "func f{0}() int {{ return {0} }}"}[language]
    return "\n".join(word.format(number * 1000 + line) for line in range(40)).encode()


@contextmanager
def mine(root: Path) -> Iterator[tuple[Api, GitServer]]:
    """Eight repositories, of them one that is gone, one that is empty, and three with the same file."""
    with serving_git(GitServer(root)) as server:
        nodes = []
        for number in range(8):
            language, name = ("C", "Go")[number % 2], f"org{number % 3}/p{number}"
            nodes.append(
                node(number, language, 50 + number, when("2015-01-01T00:00:00Z") + number,
                     nameWithOwner=name, url=f"{server.url}/{name}", licenseInfo={"spdxId": "MIT"})
            )  # fmt: skip
            if number == 2 and not (root / name).exists():
                (root / name).mkdir(parents=True)
                git(root / name, "init", "--bare", "--quiet", ".")
            elif number != 5 and not (root / name).exists():
                ending = language.lower()
                files = {
                    f"src/a.{ending}": source(number, language),
                    "short.c": b"int a;\n",
                    "README": b"hi\n",
                }
                make_repository(root / name, {**files, **({"copied.c": SHARED} if language == "C" else {})})
        with answering(Api(nodes)) as api:
            yield api, server


def collect(api: Api, folder: Path, **more: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    told = {
        "GITHUB_TOKEN": TOKEN, "API_URL": api.url, "ALLOW_PROTOCOL": "http", "LANGUAGES": "C,Go", "BATCH": "4",
        "CLONE_WORKERS": "2", "WORKERS": "1",
    }  # fmt: skip
    return subprocess.Popen(
        [str(SCRIPT), str(folder)], env=kept | told | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def rows(folder: Path) -> list[SourceFile]:
    return [row for shard in find_shards(folder / "Code") for row in read_shard(shard)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "Code").glob("*.parquet"))}


@pytest.mark.slow
def test_from_a_search_to_shards(tmp_path: Path) -> None:
    for name in ("Clones", "Shards"):  # somebody's own, named as in examples of the other tools
        (tmp_path / "Data" / name / "kept").mkdir(parents=True)
    with mine(tmp_path / "served") as (api, server):
        process = collect(api, tmp_path / "Data")
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
        heads = {
            path.name: git(path, "rev-parse", "HEAD")
            for path in (tmp_path / "served").glob("*/*")
            if path.name != "p2"
        }
        asked = sum(server.asked.values())
        process = collect(api, tmp_path / "Data")
        assert process.communicate(timeout=120)[0].count("finished already") == 1
        assert process.returncode == 0
        assert sum(server.asked.values()) == asked
        make_repository(tmp_path / "served" / "org0" / "p0", {"src/a.c": source(99, "C")}, "later")
        questions = len(api.asked)
        process = collect(
            api, tmp_path / "Again", COMMITS=str(tmp_path / "Data" / "Commits"), GITHUB_TOKEN=""
        )
        said = process.communicate(timeout=120)[0]
        assert (process.returncode, len(api.asked)) == (0, questions), said
    assert contents(tmp_path / "Again") == contents(tmp_path / "Data")
    assert sorted(path.name for path in (tmp_path / "Data").iterdir()) == [
        "Clones", "Code", "Commits", "Extracted", "Shards", "TopLists",
    ]  # fmt: skip
    assert all((tmp_path / "Data" / name / "kept").is_dir() for name in ("Clones", "Shards"))
    found = {(row.repository.split("/")[1], row.path): row for row in rows(tmp_path / "Data")}
    # p6 has more stars than p0 and p4, whose copies of the same file are left out.
    assert sorted(found) == [
        ("p0", "src/a.c"), ("p1", "src/a.go"), ("p3", "src/a.go"), ("p4", "src/a.c"), ("p6", "copied.c"),
        ("p6", "src/a.c"), ("p7", "src/a.go"),
    ]  # fmt: skip
    for (project, _), row in found.items():
        number = int(project[1:])
        assert (row.stars, row.licenses, row.commit) == (50 + number, ["MIT"], heads[project])
        assert row.language == ("C", "Go")[number % 2]
    ends = [
        json.loads(line)
        for path in sorted((tmp_path / "Data" / "Commits").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert {row["name"][-2:]: row["outcome"] for row in ends if row["outcome"] != "ok"} == {
        "p2": "empty", "p5": "gone",
    }  # fmt: skip


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_many_instants(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with mine(tmp_path / "served") as (api, _):
        begun = time.monotonic()
        process = collect(api, tmp_path / "straight")
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
        whole = time.monotonic() - begun
        for _ in range(5):
            process = collect(api, tmp_path / "killed")
            time.sleep(chance.random() * whole)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        process = collect(api, tmp_path / "killed")
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


def test_help_and_misuse() -> None:
    told = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout
    assert "GITHUB_TOKEN=... tools/collect/collect_data.sh [FOLDER]" in told
    assert subprocess.run([SCRIPT, "--fast"], capture_output=True, check=False).returncode == 2
    assert subprocess.run([SCRIPT, "a", "b"], capture_output=True, check=False).returncode == 2
    environment = {**os.environ, "COMMITS": "/nonexistent"}
    refused = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "COMMITS=/nonexistent holds no .jsonl file" in refused.stderr
