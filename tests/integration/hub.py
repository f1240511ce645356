"""A server on this machine that speaks as much of the Hugging Face hub's HTTP as its client needs for a model."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What it offers, and what was done to it.

    Args:
        models: folders by name of the model.
        token: that writing needs.
    """

    models: dict[str, Path] = field(default_factory=dict)
    token: str = "hf_secret"
    address: str = ""
    fetched: list[str] = field(default_factory=list)
    pushed: dict[str, bytes] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Run the server while the block runs; `address` is set."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._file() if "/resolve/" in self.path else self._info()

        def do_HEAD(self) -> None:
            self._file()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/api/validate-yaml":
                return self._json({"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self._json({"error": "Invalid username or password."}, 401)
            if self.path == "/api/repos/create":
                request = json.loads(body)
                hub.created.append("/".join(filter(None, (request.get("organization"), request["name"]))))
                return self._json({"url": f"{hub.address}/{hub.created[-1]}"})
            if "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                regular = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
                return self._json({"files": regular})
            assert "/commit/" in self.path, self.path
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    hub.pushed[value["path"]] = base64.b64decode(value["content"])
            address = f"{hub.address}/me/polycoder/commit/{_COMMIT}"
            return self._json({"success": True, "commitOid": _COMMIT, "commitUrl": address})

        def _folder(self, path: str) -> Path | None:
            return next((f for name, f in hub.models.items() if path.startswith(f"{name}/")), None)

        def _info(self) -> None:
            path = self.path.partition("?")[0].removeprefix("/api/models/")
            folder = self._folder(f"{path}/")
            if folder is None:
                return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            if "/tree/" in path:
                return self._json(
                    [{"type": "file", "path": str(f.relative_to(folder)), "oid": "0", "size": f.stat().st_size}
                     for f in files]
                )  # fmt: skip
            siblings = [{"rfilename": str(f.relative_to(folder))} for f in files]
            return self._json(
                {"id": path, "sha": _COMMIT, "siblings": siblings, "tags": [], "private": False}
            )

        def _file(self) -> None:
            name = self.path.partition("/resolve/")[2].partition("/")[2]
            folder = self._folder(self.path.removeprefix("/"))
            content = (folder / name).read_bytes() if folder is not None else b""
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": _COMMIT}
            if self.command == "GET":
                hub.fetched.append(name)
            self._send(content, 200, headers)

        def _json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
            self._send(json.dumps(content).encode(), status, headers or {})

        def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
