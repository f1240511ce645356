"""Runs git so that neither the user's settings nor a repository's can change what happens, and never for too long.

No configuration but ours is read, no hook, template, filter, credential helper or pager runs, nobody is asked for a
password, and only the protocols that are allowed are spoken, also where a server redirects.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from megatron.neox.errors import DependencyError, ResourceError

_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.fsmonitor": "false",
    "core.askPass": "",
    "credential.helper": "",
    "filter.lfs.smudge": "",
    "filter.lfs.process": "",
    "filter.lfs.required": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",  # keep the pack: many small files would be slower to write and to measure
    "transfer.bundleURI": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
    "http.followRedirects": "initial",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
}
_KEPT = frozenset({
    "PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
})  # fmt: skip
_POLL_SECONDS = 0.05
_TOLD_BYTES = 1 << 16  # of what git says


class GitError(Exception):
    """Git ended with an error; the text is what it said."""


class TimedOut(Exception):
    """The time for this repository is over."""


class TooBig(Exception):
    """More than was allowed; the text says what."""


class Stopped(Exception):
    """All clones are to end."""


def git_environment(protocols: Sequence[str]) -> dict[str, str]:
    """The environment of each git: of the caller's only the way out of a firewall."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    return kept | {
        "LC_ALL": "C",
        "HOME": "/nonexistent",  # where a .netrc would lie
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(protocols),
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
        **{f"GIT_CONFIG_KEY_{at}": key for at, key in enumerate(_CONFIG)},
        **{f"GIT_CONFIG_VALUE_{at}": value for at, value in enumerate(_CONFIG.values())},
    }


class Git:
    """Git in one folder, until a deadline or until `stop` is set.

    Args:
        deadline: by `time.monotonic`.
    """

    def __init__(
        self, folder: Path, *, protocols: Sequence[str], deadline: float, stop: threading.Event
    ) -> None:
        self.folder = folder
        self._environment = git_environment(protocols) | {
            "GIT_CEILING_DIRECTORIES": str(folder.parent.absolute())
        }
        self._deadline, self._stop = deadline, stop

    def run(
        self, *arguments: str, output: IO[bytes] | None = None, watch: Callable[[], None] | None = None
    ) -> str:
        """Run `git ARGUMENTS` and return what it told on stderr; its output goes to `output`.

        Args:
            watch: called now and then meanwhile; what it raises ends git.

        Raises:
            GitError, TimedOut, Stopped: as they say.
            DependencyError: there is no git.
            ResourceError: the disk is full.
        """
        with tempfile.TemporaryFile() as told:
            try:
                process = subprocess.Popen(
                    ["git", *arguments], cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL,
                    stdout=output or subprocess.DEVNULL, stderr=told, start_new_session=True,
                )  # fmt: skip
            except FileNotFoundError as error:
                if not self.folder.is_dir():
                    raise
                raise DependencyError("git is not installed, or not in PATH") from error
            try:
                self._wait(process, watch)
            finally:
                _end(process)
            told.seek(0)
            text = _readable(told.read(_TOLD_BYTES))
        if process.returncode == 0:
            return text
        if "No space left on device" in text or "Disk quota exceeded" in text:
            raise ResourceError(
                "no space left on the disk while cloning; make room, and the same command goes on"
            )
        raise GitError(text or f"git ended with {process.returncode}")

    def _wait(self, process: subprocess.Popen[bytes], watch: Callable[[], None] | None) -> None:
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
                return
            if self._stop.is_set():
                raise Stopped
            if time.monotonic() > self._deadline:
                raise TimedOut
            if watch:
                watch()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill git and whatever it started, which shares its process group; there is nothing left to say goodbye to."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _readable(told: bytes) -> str:
    """What a server or git said, without what could steer a terminal."""
    text = told.decode(errors="replace").strip()
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
