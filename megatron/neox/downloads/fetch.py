"""One file over HTTP: resumed where it broke off, tried again, checked, and under its name only when it is whole.

What has arrived stands in NAME.part, and NAME.part.etag says of which version of the file it is. A later run, also
after SIGKILL, asks for the rest by a range that the server grants for that version only (RFC 9110, sections 13.1.5
and 14.2); from a server that knows no ranges the file is taken from its start.
"""

from __future__ import annotations

import email.utils
import errno
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
import urllib3.exceptions

from megatron.neox.errors import InputError, OutputError, ResourceError
from megatron.neox.files import write_whole

log = logging.getLogger(__name__)
T = TypeVar("T")

Report = Callable[[str, int, "int | None"], None]
"""Is told a file's name, the bytes that are there, and how many there will be, where that is known."""

_CHUNK_BYTES = 1 << 20
_LONGEST_WAIT_SECONDS = 60.0
_DOCUMENT_BYTES = 8 << 20
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Args:
        size_bytes: none where it is not known.
        checksum: `ALGORITHM:HEX`, as in `md5:9e107d...`; none where nothing is known to compare with.
    """

    url: str
    size_bytes: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Patience:
    """When to give up: after `num_retries` failures in a row without a new byte; the wait doubles each time."""

    num_retries: int = 6
    wait_seconds: float = 1.0
    timeout_seconds: float = 60.0


class Refused(InputError):
    """The server answered, and does not give the file; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Passing(Exception):
    """A failure that may be gone at the next attempt."""

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class Fetcher:
    """Fetches over one session; the caller holds the folder that it writes to (`lock.alone_in`).

    Args:
        token: sent to the server that is asked, and not to one that it redirects to; never shown.
        server: what a user sets to ask another server, for messages.
    """

    def __init__(
        self,
        report: Report,
        patience: Patience | None = None,
        *,
        token: str | None = None,
        server: str = "--mirror",
    ) -> None:
        self._report = report
        self._server = server
        self._patience = patience or Patience()
        self._session = requests.Session()
        # Bytes as they lie on the server: a compressed transfer could neither be resumed nor compared.
        self._session.headers.update({"Accept-Encoding": "identity", "User-Agent": "megatron-neox"})
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def document(self, url: str) -> bytes:
        """The content of a small file.

        Raises:
            ResourceError: the server cannot be reached.
            InputError: it refuses, or sends more than 8 MiB.
        """

        def attempt() -> bytes:
            with self._response(url, {}) as response, _reading(url):
                body = response.raw.read(_DOCUMENT_BYTES + 1, decode_content=False)
            if len(body) > _DOCUMENT_BYTES:
                raise InputError(f"{url} sends more than {_DOCUMENT_BYTES} bytes; is it the right address?")
            return body

        return self._patiently(url, attempt, lambda: 0)

    def fetch(self, remote: Remote, path: Path, *, copies: int = 1) -> bool:
        """Bring `remote` to `path`; what is there already and is the same is left alone.

        Args:
            copies: how many times the file must fit on the disk; 2 where it will be unpacked.

        Returns:
            Whether anything had to be fetched.

        Raises:
            OutputError: another file stands at `path`.
            InputError: the server refuses, as for a name that it does not have.
            ResourceError: the network does not hold, the disk is full, or what arrived is not the file.
        """
        if os.path.lexists(path):
            if problem := mismatch(path, remote):
                raise OutputError(
                    f"{path} is there already and is another file: {problem}\n"
                    f"  move it away; or, if it is the beginning of the file, rename it to {path.name}.part"
                )
            return False
        transfer = _Transfer(remote, path, self._response, self._report, copies)
        self._patiently(remote.url, transfer.attempt, transfer.num_bytes)
        problem = mismatch(transfer.part, remote)
        if problem and transfer.is_resumed:
            log.warning("%s: %s; it is fetched once more from its start", path.name, problem)
            transfer.discard()
            self._patiently(remote.url, transfer.attempt, transfer.num_bytes)
            problem = mismatch(transfer.part, remote)
        if problem:
            transfer.discard()
            raise ResourceError(
                f"{remote.url}: what arrived is not the file that was released: {problem}\n"
                f"  it was removed; try later, or from another network or {self._server}"
            )
        transfer.finish()
        return True

    def _patiently(self, url: str, attempt: Callable[[], T], num_bytes: Callable[[], int]) -> T:
        """Call `attempt` until it succeeds; failures count anew whenever more has arrived than ever before."""
        failures, furthest, patience = 0, num_bytes(), self._patience
        while True:
            try:
                return attempt()
            except _Passing as error:
                if num_bytes() > furthest:
                    failures, furthest = 0, num_bytes()
                failures += 1
                if failures > patience.num_retries:
                    kept = "what has arrived is kept, and the same command goes on; " if num_bytes() else ""
                    raise ResourceError(
                        f"{url}: {error}; given up at attempt {failures}\n"
                        f"  {kept}HTTPS_PROXY is honoured, and {self._server} names another server"
                    ) from error
                wait = max(error.wait_seconds, patience.wait_seconds * 2 ** (failures - 1))
                wait = min(wait, _LONGEST_WAIT_SECONDS)
                log.warning(
                    "%s: %s; retry %d of %d in %.1f s", url, error, failures, patience.num_retries, wait
                )
                time.sleep(wait)

    @contextmanager
    def _response(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """An answer with status 200, 206 or 416.

        Raises:
            _Passing: no connection, or the server is not well.
            InputError: the server refuses, or the address is none.
        """
        try:
            response = self._session.get(
                url, headers=headers, stream=True, timeout=self._patience.timeout_seconds
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise InputError(
                    f"{url}: the server's certificate is not trusted ({innermost(error)}); behind a firewall that "
                    "puts in its own, let REQUESTS_CA_BUNDLE name its certificate"
                ) from error
            raise _Passing(innermost(error)) from error
        except requests.RequestException as error:
            raise InputError(f"{url} cannot be fetched: {error}") from error
        with response:
            if response.status_code in _PASSING_STATUS:
                raise _Passing(f"the server says {_status(response)}", retry_after(response))
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise InputError(f"{url} leads to {response.url}, which is not encrypted; it is not followed")
            if response.status_code not in (200, 206, 416):
                raise Refused(f"{response.url}: the server says {_status(response)}", response.status_code)
            yield response


class _Transfer:
    """The bytes of one file on their way to NAME.part."""

    def __init__(
        self,
        remote: Remote,
        path: Path,
        get: Callable[[str, dict[str, str]], Any],
        report: Report,
        copies: int,
    ) -> None:
        self.part = path.with_name(f"{path.name}.part")
        self.is_resumed = False
        self._etag = path.with_name(f"{path.name}.part.etag")
        self._path, self._remote, self._get, self._report, self._copies = path, remote, get, report, copies

    def num_bytes(self) -> int:
        """Bytes that have arrived."""
        return self.part.stat().st_size if self.part.exists() else 0

    def attempt(self) -> None:
        """Ask for what is missing and take what comes.

        Raises:
            _Passing: it broke off.
            InputError, ResourceError: as `Fetcher.fetch`.
        """
        remote, have, etag = self._remote, self.num_bytes(), self._version()
        self._require_room(remote.size_bytes)
        if have and (not (etag or remote.checksum) or have > (remote.size_bytes or have)):
            log.info(
                "%s: the beginning that is there is of no known version; it starts anew", self._path.name
            )
            self.discard()
            have = 0
        if have and have == remote.size_bytes:
            self.is_resumed = True
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and etag:
            headers["If-Range"] = etag
        with self._get(remote.url, headers) as response:
            self._take(response, have, etag)

    def _take(self, response: requests.Response, have: int, etag: str) -> None:
        start, total = _span(response)
        if response.status_code == 416 and have and total == have:
            self.is_resumed = True
            return
        is_other = bool(etag and have and start) and etag != response.headers.get("ETag", etag)
        if response.status_code == 416 or is_other or start not in (0, have):
            self.discard()
            raise _Passing("the file has changed, or the server sends another range than it was asked for")
        if self._remote.size_bytes is not None and total not in (None, self._remote.size_bytes):
            raise ResourceError(
                f"{response.url} holds {total} bytes, and {self._remote.size_bytes} were released; "
                "does a firewall or a mirror answer in its place?"
            )
        self._require_room(total)
        self.is_resumed = self.is_resumed or start > 0
        if have and not start:
            log.info("%s: the file has changed or cannot be resumed; it starts anew", self._path.name)
        elif start:
            log.info("%s: resumed at byte %d", self._path.name, start)
        self._write(response, start, total)

    def _write(self, response: requests.Response, start: int, total: int | None) -> None:
        done = start
        try:
            with self.part.open("ab" if start else "wb") as file, _reading(response.url):
                if not start:  # only now, when nothing of another version is left
                    write_whole(self._etag, _strong_etag(response))
                self._report(self._path.name, done, total)
                while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                    file.write(chunk)
                    done += len(chunk)
                    self._report(self._path.name, done, total)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ResourceError(
                f"no space left on the disk while writing {self.part}; make room, and the same command goes on"
            ) from error
        if total is not None and done < total:
            raise _Passing(f"the connection ended after {done} of {total} bytes")

    def _require_room(self, total: int | None) -> None:
        """Refuse a file that cannot fit, before anything of it is written."""
        needed = (total or 0) * self._copies - self.num_bytes()
        free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise ResourceError(
                f"{self._path.name} needs {needed / 1e9:.2f} GB in {self._path.parent.absolute()}, where "
                f"{free / 1e9:.2f} GB are free; make room, or give another --output"
            )

    def _version(self) -> str:
        """The ETag of what has arrived, "" where there is none."""
        return self._etag.read_text(encoding="utf-8").strip() if self._etag.exists() else ""

    def discard(self) -> None:
        """Forget what has arrived."""
        self.part.unlink(missing_ok=True)
        self._etag.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its name, once its content lies on the disk."""
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self._path)
        self._etag.unlink(missing_ok=True)


def mismatch(path: Path, remote: Remote) -> str | None:
    """What tells the file at `path` from the remote one, None where nothing does."""
    size = path.stat().st_size if path.is_file() else -1
    if size < 0:
        return "it is not a file"
    if remote.size_bytes is not None and size != remote.size_bytes:
        return f"it has {size} bytes instead of {remote.size_bytes}"
    if remote.checksum is None:
        return None
    algorithm, _, expected = remote.checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    return None if found == expected.lower() else f"its {algorithm} is {found} instead of {expected}"


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """Turn what breaks a body off into a failure that passes; errors of the disk go through."""
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        raise _Passing(f"the connection broke ({innermost(error)})") from error


def _span(response: requests.Response) -> tuple[int, int | None]:
    """Where the body belongs in the file, and how long the file is, where the server says so."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip()
    )
    if found is None:
        return -1, None
    start, total = found.groups()
    return int(start or -1), None if total == "*" else int(total)


def _strong_etag(response: requests.Response) -> str:
    """The ETag, unless it is weak: equal weak ones do not promise equal bytes."""
    etag = response.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag


def _status(response: requests.Response) -> str:
    return f"{response.status_code} {response.reason}"


def retry_after(response: requests.Response) -> float:
    """Seconds that the server asks to wait for, as a number or a date (RFC 9110, section 10.2.3)."""
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def innermost(error: BaseException) -> str:
    """The reason at the bottom of nested exceptions, which alone says something to a reader."""
    while True:
        inner = getattr(error, "reason", None) or next(
            (part for part in reversed(error.args) if isinstance(part, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            return str(error)
        error = inner
