"""Repositories made by git, served on this machine by git's own HTTP backend, which can be told to misbehave."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.loopback import QuietHandler, serving_here

_ENVIRONMENT = {
    "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C",
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": "2021-10-09T00:00:00Z",
    "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_COMMITTER_DATE": "2021-10-09T00:00:00Z",
}  # fmt: skip


def git(folder: Path, *arguments: str, told: bytes = b"") -> str:
    """What git says, in a folder, as nobody in particular."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=_ENVIRONMENT, input=told, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


@dataclass
class Files:
    """Content by path; a string is a link's target."""

    content: dict[str, bytes | str]
    submodules: tuple[str, ...] = ()


def make_repository(path: Path, files: Files | dict[str, bytes | str], message: str = "first") -> str:
    """A bare repository with these files in a further commit; its name."""
    files = files if isinstance(files, Files) else Files(files)
    if not path.exists():
        path.mkdir(parents=True)
        git(path, "init", "--bare", "--quiet", "--initial-branch=trunk", ".")
    entries = []
    for name, content in files.content.items():
        mode, data = ("120000", content.encode()) if isinstance(content, str) else ("100644", content)
        entries.append(f"{mode} {git(path, 'hash-object', '-w', '--stdin', told=data)}\t{name}")
    entries += [f"160000 {'1' * 40}\t{name}" for name in files.submodules]
    index = {"GIT_INDEX_FILE": str(path / "scratch-index")}
    for arguments, told in (
        (["read-tree", "--empty"], ""),
        (["update-index", "-z", "--index-info"], "\0".join(entries)),
    ):
        subprocess.run(
            ["git", *arguments], cwd=path, env=_ENVIRONMENT | index, input=os.fsencode(told), check=True
        )
    tree = subprocess.run(
        ["git", "write-tree"], cwd=path, env=_ENVIRONMENT | index, capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    commit = git(path, "commit-tree", tree, "-m", message)
    git(path, "update-ref", "refs/heads/trunk", commit)
    return commit


def make_bomb(path: Path, depth: int = 10) -> None:
    """Ten names for one folder, which has ten names for one folder, and so on: 10 to the power of `depth` files."""
    make_repository(path, {"a": b"a"})
    inner = git(path, "hash-object", "-w", "--stdin", told=b"boom\n")
    mode, kind = "100644", "blob"
    for _ in range(depth):
        told = "".join(f"{mode} {kind} {inner}\t{at}\n" for at in range(10))
        inner, mode, kind = git(path, "mktree", told=told.encode()), "40000", "tree"
    git(path, "update-ref", "refs/heads/trunk", git(path, "commit-tree", inner, "-m", "boom"))


@dataclass
class GitServer:
    """Bare repositories below `root`, and what happens to whom asks for one.

    `faults` by the path of a repository: a status, a path to be led on to, or "stall"; `passing` ones by path come
    once each, before it.
    """

    root: Path
    faults: dict[str, int | str] = field(default_factory=dict)
    passing: dict[str, list[int]] = field(default_factory=dict)
    slow_seconds: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    authorizations: set[str | None] = field(default_factory=set)
    url: str = ""


def _handler(server: GitServer) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers["Content-Length"])))

        def _serve(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            name = "/".join(path.strip("/").split("/")[:2])
            server.asked[name] += 1
            server.authorizations.add(self.headers.get("Authorization"))
            time.sleep(server.slow_seconds)
            fault = server.passing[name].pop(0) if server.passing.get(name) else server.faults.get(name)
            if fault == "stall":
                time.sleep(4)
                self.close_connection = True
                return
            if isinstance(fault, str):
                rest = path.strip("/").removeprefix(name)
                self.send(301, b"", {"Location": f"{fault}{rest}?{query}"})
            elif fault is not None:
                headers = {"WWW-Authenticate": 'Basic realm="GitHub"'} if fault == 401 else {}
                self.send(fault, b"", headers)
            else:
                self._backend(path, query, body)

        def _backend(self, path: str, query: str, body: bytes) -> None:
            environment = _ENVIRONMENT | {
                "GIT_PROJECT_ROOT": str(server.root), "GIT_HTTP_EXPORT_ALL": "1", "REQUEST_METHOD": self.command,
                "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_LENGTH": str(len(body)),
                "CONTENT_TYPE": self.headers.get("Content-Type", ""), "REMOTE_ADDR": "127.0.0.1",
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }  # fmt: skip
            done = subprocess.run(
                ["git", "http-backend"], env=environment, input=body, capture_output=True, check=False
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
            status = int(headers.pop("Status", "200").split()[0])
            self.send(status, content, headers)

    return Handler


@contextmanager
def serving_git(made: GitServer) -> Iterator[GitServer]:
    """Serve `made` on the loopback while the block runs."""
    with serving_here(_handler(made)) as address:
        made.url = address
        yield made
