"""tools/collect/clone_repo.py with real repositories behind a real git server, some of them hostile."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.corpus.clone.many import CloneSettings, clone_each
from megatron.neox.corpus.clone.one import Clone, CloneLimits
from megatron.neox.corpus.repositories import Repository, read_list
from megatron.neox.downloads.lock import alone_in
from megatron.neox.errors import InputError, OutputError
from tests.integration.git_server import Files, GitServer, git, make_bomb, make_repository, serving_git
from tests.integration.training_case import ROOT

LIMITS = CloneLimits(
    timeout_seconds=20,
    max_bytes=1 << 20,
    protocols=("https", "http"),
    wait_seconds=0.01,
    listing_bytes=1 << 20,
)
ODD: dict[str, bytes | str] = {
    "a.c": b"int a;\r\nint b;\n",
    "-rf.c": b"int c;\n",
    "src/caf\u00e9 $(touch x).c": b"int d;\n",
    "new\nline.c": b"int e;\n",
    "tab\t.c": b"int f;\n",
    "back\\slash.c": b"int g;\n",
    "bad\udcff.c": b"int h;\n",
    "out.c": "/etc/passwd",
    "up": "../../../..",
    ".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n*.c filter=evil\n",
    "big.bin": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    ".gitmodules": b'[submodule "sub"]\n\tpath = sub\n\turl = ssh://git@127.0.0.1:9/sub\n',
    ".githooks/post-checkout": b"#!/bin/sh\ntouch hooked\n",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    make_repository(root / "ann" / "plain", {"main.c": b"int main() {}\n"})
    make_repository(root / "ann" / "odd", Files(ODD, submodules=("sub",)))
    make_repository(root / "ann" / "inflated", {"zeros.c": bytes(3 << 20)})
    make_repository(root / "ann" / "large", {"noise.c": random.Random(1).randbytes(3 << 20)})
    make_bomb(root / "ann" / "bomb")
    (root / "ann" / "empty").mkdir()
    git(root / "ann" / "empty", "init", "--bare", "--quiet", ".")
    for number in range(10):
        make_repository(root / "bob" / f"r{number}", {"x.c": b"%d" % number, "sub/y.c": b"y" * 1000 * number})
    return root


@pytest.fixture
def server(root: Path) -> Iterator[GitServer]:
    with serving_git(GitServer(root)) as made:
        yield made


def named(server: GitServer, *names: str, **known: Any) -> list[Repository]:
    return [Repository(language="C", name=name, url=f"{server.url}/{name}", **known) for name in names]


def clone(output: Path, repositories: list[Repository], **changes: Any) -> list[Clone]:
    """In the order of the list."""
    settings = CloneSettings(output=output, workers=4, limits=replace(LIMITS, **changes))
    done = {entry.repository.name: entry for entry in clone_each(repositories, settings)}
    return [done[entry.name] for entry in repositories if entry.name in done]


def records(output: Path) -> dict[str, dict[str, Any]]:
    rows = map(json.loads, (output / "clones.jsonl").read_text().splitlines())
    return {row["name"]: {key: value for key, value in row.items() if key != "cloned_at"} for row in rows}


def tree(folder: Path) -> dict[str, bytes | str]:
    """Files and links below a folder, of repositories without git's own."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or path.is_file()) and ".git" not in path.relative_to(folder).parts
        and path.name != "clones.jsonl"
    }  # fmt: skip


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | changes


def command(*arguments: object, **changes: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "collect" / "clone_repo.py"), *map(str, arguments)],
        env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


# Row 28 of the table of bad inputs, and what else becomes of a clone: what the server does, the outcome, what is said.
OUTCOMES: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("whole", "ann/plain", {}, "ok", ""),
    ("deleted", "ann/absent", {}, "gone", "not found"),
    ("deleted, 410", "ann/plain", {"faults": {"ann/plain": 410}}, "gone", "410"),
    ("renamed", "ann/old", {"faults": {"ann/old": "/ann/plain"}}, "moved", ""),
    ("private", "ann/plain", {"faults": {"ann/plain": 401}}, "private", "terminal prompts disabled"),
    ("DMCA", "ann/plain", {"faults": {"ann/plain": 451}}, "blocked", "451"),
    ("empty", "ann/empty", {}, "empty", "couldn't find remote ref HEAD"),
    ("huge, said", "ann/plain", {"disk_kilobytes": 1025}, "too_big", "with its history"),
    ("huge, sent", "ann/large", {}, "too_big", "its pack has more than 1048576 bytes"),
    ("huge, unpacked", "ann/inflated", {}, "too_big", "its files have 3145728 bytes"),
    ("ten billion files", "ann/bomb", {}, "too_big", "the names of its files"),
    ("silent", "ann/plain", {"faults": {"ann/plain": "stall"}, "timeout_seconds": 0.5}, "timeout", "after 0.5 s"),
    ("503 once", "ann/plain", {"passing": {"ann/plain": [503]}}, "ok", ""),
    ("503", "ann/plain", {"faults": {"ann/plain": 503}}, "failed", "503"),
    ("403", "ann/plain", {"faults": {"ann/plain": 403}}, "failed", "403"),
    ("a lost commit", "ann/plain", {"commit": "1" * 40}, "commit_gone", "not our ref"),
    ("led to a file", "ann/old", {"faults": {"ann/old": "file:///etc"}}, "failed", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "outcome", "message"), [row[1:] for row in OUTCOMES], ids=[row[0] for row in OUTCOMES]
)
def test_what_becomes_of_a_clone(
    root: Path, tmp_path: Path, name: str, given: dict[str, Any], outcome: str, message: str
) -> None:
    known = {key: given[key] for key in ("disk_kilobytes", "commit") if key in given}
    limits = {key: given[key] for key in ("timeout_seconds",) if key in given}
    faults = {key: given[key] for key in ("faults", "passing") if key in given}
    with serving_git(GitServer(root, **{key: dict(value) for key, value in faults.items()})) as server:
        (found,) = clone(tmp_path / "out", named(server, name, **known), **limits)
        assert server.authorizations <= {None}
    assert (found.outcome, message in found.message) == (outcome, True), found.message
    row = records(tmp_path / "out")[name]
    assert row["outcome"] == outcome
    folder = tmp_path / "out" / "C" / name
    if outcome in ("ok", "moved"):
        assert tree(folder) == {"main.c": b"int main() {}\n"}
        assert (
            row["commit"]
            == git(root / "ann" / "plain", "rev-parse", "HEAD")
            == git(folder, "rev-parse", "HEAD")
        )
        assert (row["num_bytes"], row["num_files"]) == (14, 1)
        assert row["moved_to"] == (f"{server.url}/ann/plain" if outcome == "moved" else None)
    else:
        assert not folder.exists()
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != "C"] == ["clones.jsonl"]


def test_nothing_of_the_repository_or_the_user_is_run(server: GitServer, tmp_path: Path) -> None:
    """With a user's configuration that would run, change or send something at every step."""
    home, marks = tmp_path / "home", tmp_path / "marks"
    (home / "hooks").mkdir(parents=True)
    marks.mkdir()
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        (home / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {marks}/{hook}\n")
        (home / "hooks" / hook).chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[core]\n hooksPath = {home}/hooks\n autocrlf = true\n fsmonitor = touch {marks}/fsmonitor\n"
        f' askPass = touch {marks}/askpass\n[init]\n templateDir = {home}\n[filter "lfs"]\n'
        f' smudge = "touch {marks}/lfs; cat"\n required = true\n[filter "evil"]\n smudge = "touch {marks}/evil; cat"\n'
        f"[credential]\n helper = !touch {marks}/helper\n[submodule]\n recurse = true\n"
        '[url "http://127.0.0.1:9/"]\n insteadOf = http://127.0.0.1\n'
    )
    (home / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    server.faults["ann/private"] = 401
    listed = tmp_path / "C-top-repos.txt"
    listed.write_text(f"70\t{server.url}/ann/odd\n60\t{server.url}/ann/private\n")
    process = command(
        "--input", listed, "--output", tmp_path / "out", "--allow-protocol", "http", HOME=str(home),
        GIT_CONFIG_GLOBAL=str(home / ".gitconfig"), GIT_ASKPASS=f"touch {marks}/ask", GIT_TEMPLATE_DIR=str(home),
    )  # fmt: skip
    said, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    num_bytes = sum(len(value.encode() if isinstance(value, str) else value) for value in ODD.values())
    assert (
        said
        == f"{tmp_path}/out: 2 repositories, 2 of them now\n1 ok, 1 private\n{num_bytes / 1e6:.1f} MB of files\n"
    )
    assert list(marks.iterdir()) == []
    assert server.authorizations == {None}
    folder = tmp_path / "out" / "C" / "ann" / "odd"
    assert tree(folder) == ODD
    assert os.readlink(folder / "out.c") == "/etc/passwd"
    assert list((folder / "sub").iterdir()) == []
    row = records(tmp_path / "out")["ann/odd"]
    assert (row["stars"], row["num_files"], row["num_bytes"]) == (70, len(ODD), num_bytes)


def test_the_very_commits_again(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "served" / "ann" / "grows"
    first = make_repository(path, {"a.c": b"1"})
    with serving_git(GitServer(tmp_path / "served")) as server:
        assert clone(tmp_path / "one", named(server, "ann/grows"))[0].repository.commit == first
        second = make_repository(path, {"a.c": b"2"}, "second")
        assert second != first
        manifest = tmp_path / "one"  # its .jsonl files
        again = tmp_path / "again"
        process = command("--from-manifest", manifest, "--output", again, "--allow-protocol", "http")
        assert process.communicate(timeout=60)[0].splitlines()[1] == "1 ok"
        assert tree(again) == tree(tmp_path / "one") == {"C/ann/grows/a.c": b"1"}
        assert records(again) == records(tmp_path / "one")
        (found,) = clone(tmp_path / "new", named(server, "ann/grows"))
        assert found.repository.commit == second


def test_a_later_run_goes_on(server: GitServer, tmp_path: Path) -> None:
    """Failures and new names are cloned; what is there is not asked for; what was removed comes back as it was."""
    names = ["ann/plain", "bob/r1", "bob/r2", "ann/absent"]
    server.faults["bob/r2"] = 403
    assert [entry.outcome for entry in clone(tmp_path, named(server, *names))] == [
        "ok",
        "ok",
        "failed",
        "gone",
    ]
    server.faults.clear()
    server.asked.clear()
    assert [entry.repository.name for entry in clone(tmp_path, named(server, *names, "bob/r3"))] == [
        "bob/r2", "bob/r3",
    ]  # fmt: skip
    assert set(server.asked) == {"bob/r2", "bob/r3"}
    assert [row["outcome"] for row in records(tmp_path).values()] == ["ok", "ok", "ok", "gone", "ok"]
    (tmp_path / "C" / "ann" / "plain" / "main.c").unlink()
    (tmp_path / "C" / "ann" / "plain").rename(tmp_path / "away")
    (found,) = clone(tmp_path, named(server, *names))
    assert (found.repository.name, found.outcome) == ("ann/plain", "ok")
    assert clone(tmp_path, named(server, *names)) == []


def test_used_and_taken_away(server: GitServer, tmp_path: Path) -> None:
    """A driver sees each clone whole, and no more than a few lie on the disk at once."""
    repositories = named(server, *(f"bob/r{number}" for number in range(10)), "ann/absent")
    settings = CloneSettings(output=tmp_path / "out", workers=2, limits=LIMITS, is_kept=False)
    seen: dict[str, dict[str, bytes | str]] = {}
    most = 0

    def use(clone: Clone) -> None:
        nonlocal most
        assert clone.path is not None
        seen[clone.repository.name] = tree(clone.path)
        most = max(most, len(list((tmp_path / "out").rglob("x.c"))))

    assert len(list(clone_each(repositories, settings, use))) == 11
    assert seen == {
        f"bob/r{number}": {"sub/y.c": b"y" * 1000 * number, "x.c": b"%d" % number} for number in range(10)
    }
    assert most <= 5
    assert tree(tmp_path / "out") == {}
    assert list(clone_each(repositories, settings, use)) == []


def kill_and_go_on(root: Path, tmp_path: Path, *, num_kills: int, seed: int) -> None:
    chance = random.Random(seed)
    with serving_git(GitServer(root, slow_seconds=0.02)) as server:
        names = [*(f"bob/r{number}" for number in range(10)), "ann/odd", "ann/absent"]
        listed = tmp_path / "C-top-repos.txt"
        listed.write_text("".join(f"{server.url}/{name}\n" for name in names))
        arguments = ("--input", listed, "--workers", 2, "--allow-protocol", "http", "--output")
        clone(tmp_path / "straight", named(server, *names))
        kills = 0
        for _ in range(num_kills):
            process = command(*arguments, tmp_path / "killed")
            before, stop = sum(server.asked.values()), chance.randrange(1, 14)
            while process.poll() is None and sum(server.asked.values()) < before + stop:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
        process = command(*arguments, tmp_path / "killed")
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    assert kills > 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "straight")
    assert records(tmp_path / "killed") == records(tmp_path / "straight")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["C", "clones.jsonl"]


def test_a_killed_run_goes_on(root: Path, tmp_path: Path) -> None:
    kill_and_go_on(root, tmp_path, num_kills=2, seed=1)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(10))
def test_a_run_killed_at_many_instants_goes_on(root: Path, tmp_path: Path, seed: int) -> None:
    kill_and_go_on(root, tmp_path, num_kills=5, seed=seed)


def test_a_stopped_run_leaves_nothing_behind(root: Path, tmp_path: Path) -> None:
    """SIGTERM ends git too, and what it had begun is gone."""
    with serving_git(GitServer(root, faults={"ann/plain": "stall"})) as server:
        listed = tmp_path / "C-top-repos.txt"
        listed.write_text(f"{server.url}/ann/plain\n")
        process = command("--input", listed, "--output", tmp_path / "out", "--allow-protocol", "http")
        while not server.asked and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert process.returncode == 128 + signal.SIGTERM
        running = [
            path for path in Path("/proc").glob("[0-9]*/cmdline")
            if server.url.encode() in _content(path) and b"git" in _content(path)
        ]  # fmt: skip
    assert running == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clones.jsonl"]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_addresses_that_are_none(tmp_path: Path) -> None:
    listed = tmp_path / "urls.txt"
    for line, language, problem in [
        ("https://github.com/a/b", None, "give --language"),
        ("https://github.com/a/b", "../C", "not the name of a language"),
        ("https://me:secret@github.com/a/b", "C", "carries a user or password"),
        ("ext::sh -c touch% x", "C", "not ORGANIZATION/PROJECT"),
        ("-oProxyCommand=x", "C", "is no address"),
        ("https://github.com/a/..", "C", "not ORGANIZATION/PROJECT"),
        ("many\thttps://github.com/a/b", "C", "'many' is no number of stars"),
        ("http://github.com/a/b", "C", "protocol http is not allowed"),
        ("ssh://github.com/a/b", "C", "protocol ssh is not allowed"),
    ]:
        listed.write_text(f"{line}\n")
        with pytest.raises(InputError) as caught:
            clone(tmp_path / "out", list(read_list(listed, language)), protocols=("https",))
        assert problem in str(caught.value)
        assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_misuse(tmp_path: Path) -> None:
    listed = tmp_path / "C-top-repos.txt"
    listed.write_text("70\thttp://github.com/a/b\n")
    process = command("--input", listed, "--output", tmp_path / "out")
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert told == (
        "InputError\nhttp://github.com/a/b: protocol http is not allowed; --allow-protocol http would allow it\n"
    )
    for arguments, message in {
        ("--input", tmp_path, "--language", "C"): "--language is for a file of addresses",
        ("--from-manifest", tmp_path): "holds no .jsonl file; give a clones.jsonl",
    }.items():
        process = command(*arguments, "--output", tmp_path / "out")
        told = process.communicate(timeout=60)[1]
        assert (process.returncode, message in told) == (2, True), told
    assert not (tmp_path / "out").exists()


def test_from_a_folder(root: Path, tmp_path: Path) -> None:
    """A mirror on the disk, where the protocol is allowed."""
    local = [Repository(language="C", name="ann/plain", url=f"file://{root}/ann/plain")]
    assert [entry.outcome for entry in clone(tmp_path, local, protocols=("file",))] == ["ok"]
    assert tree(tmp_path / "C") == {"ann/plain/main.c": b"int main() {}\n"}
    absent = [Repository(language="C", name="ann/absent", url=f"file://{root}/ann/absent")]
    assert [entry.outcome for entry in clone(tmp_path, absent, protocols=("file",))] == ["gone"]


def test_two_runs_at_once(server: GitServer, tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(OutputError, match="is running"):
        clone(tmp_path, named(server, "bob/r1"))
    assert not server.asked


def test_a_damaged_record(server: GitServer, tmp_path: Path) -> None:
    """Half a line is a kill's, and is cut off; another is not ours to mend."""
    clone(tmp_path, named(server, "bob/r1"))
    path = tmp_path / "clones.jsonl"
    path.write_text(path.read_text() + '{"language": "C", "na')
    assert clone(tmp_path, named(server, "bob/r1")) == []
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(InputError, match=r"clones\.jsonl:2: not a line"):
        clone(tmp_path, named(server, "bob/r1"))
