"""An HTTP server on this machine that stands in for Zenodo and GitHub, and can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.loopback import QuietHandler, serving_here

RECORD = "/api/records/6363556"


@dataclass
class Seen:
    """A request that came in, and the status that it got."""

    path: str
    range: str | None
    if_range: str | None
    status: int


@dataclass
class Origin:
    """Files by path, and the faults of the next answers, one each, in order.

    Faults: a number breaks the connection after that many bytes of the body, "503" is answered as such, "stall"
    keeps silent, "whole" ignores a range, "other" answers a range with another one, and a function is called.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[int | str | Callable[[], object]] = field(default_factory=list)
    always: int | str | None = None
    has_etags: bool = True
    has_ranges: bool = True
    minds_versions: bool = True  # grants a range for the version of If-Range only
    slow_seconds: float = 0.0  # before each 64 KiB
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def release(self, name: str, content: bytes, **entry: Any) -> None:
        """Put a file into the record, its checksum and size as they are or as given."""
        self.files[f"/record/6363556/files/{name}"] = content
        checksum = f"md5:{hashlib.md5(content).hexdigest()}"
        listed = {
            "key": name,
            "size": len(content),
            "checksum": checksum,
            "links": {"self": "unused"},
            **entry,
        }
        self.files[RECORD] = json.dumps({"id": 6363556, "files": [listed]}).encode()

    def ranges(self) -> list[str | None]:
        """The ranges that were asked for, of all but the record."""
        return [seen.range for seen in self.seen if seen.path != RECORD]


def _handler(origin: Origin) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:
            content = origin.files.get(self.path)
            fault = None
            if self.path != RECORD:
                fault = origin.faults.pop(0) if origin.faults else origin.always
            if callable(fault):
                fault()
                content, fault = origin.files.get(self.path), None
            if fault == "503":
                return self._answer(503, b"", **{"Retry-After": "0"})
            if fault == "stall":
                time.sleep(3)
                self.close_connection = True
                return None
            if content is None:
                return self._answer(404, b"")
            if content.startswith(b"-> "):
                return self._answer(302, b"", Location=content[3:].decode())
            return self._send(content, fault)

        def _send(self, content: bytes, fault: Any) -> None:
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            headers = {"ETag": etag} if origin.has_etags else {}
            asked, granted = self.headers.get("Range"), self.headers.get("If-Range", etag)
            granted = granted if origin.minds_versions else etag
            if not asked or not origin.has_ranges or fault == "whole" or granted != etag:
                return self._answer(200, content, fault, **headers)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) // (2 if fault == "other" else 1)
            if start >= len(content):
                return self._answer(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._answer(206, content[start:], fault, **headers)

        def _answer(self, status: int, body: bytes, fault: Any = None, **headers: str) -> None:
            origin.seen.append(
                Seen(self.path, self.headers.get("Range"), self.headers.get("If-Range"), status)
            )
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            end = fault if isinstance(fault, int) else len(body)
            for at in range(0, end, 1 << 16):
                if self.path != RECORD:
                    time.sleep(origin.slow_seconds)
                self.wfile.write(body[at : min(end, at + (1 << 16))])
            if end < len(body):
                self.close_connection = True

    return Handler


@contextmanager
def serving(origin: Origin) -> Iterator[Origin]:
    """Serve `origin` on the loopback while the block runs."""
    with serving_here(_handler(origin)) as address:
        origin.url = address
        yield origin
