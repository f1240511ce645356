"""A server on this machine that speaks as much of the Hugging Face hub's HTTP as its client needs for a model."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.loopback import QuietHandler, serving_here

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

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self._file() if "/resolve/" in self.path else self._info()

        def do_HEAD(self) -> None:
            self._file()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/api/validate-yaml":
                return self.send_json({"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.send_json({"error": "Invalid username or password."}, 401)
            if self.path == "/api/repos/create":
                request = json.loads(body)
                hub.created.append("/".join(filter(None, (request.get("organization"), request["name"]))))
                return self.send_json({"url": f"{hub.address}/{hub.created[-1]}"})
            if "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                regular = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
                return self.send_json({"files": regular})
            assert "/commit/" in self.path, self.path
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    hub.pushed[value["path"]] = base64.b64decode(value["content"])
            address = f"{hub.address}/me/polycoder/commit/{_COMMIT}"
            return self.send_json({"success": True, "commitOid": _COMMIT, "commitUrl": address})

        def _folder(self, path: str) -> Path | None:
            return next((f for name, f in hub.models.items() if path.startswith(f"{name}/")), None)

        def _info(self) -> None:
            path = self.path.partition("?")[0].removeprefix("/api/models/")
            folder = self._folder(f"{path}/")
            if folder is None:
                return self.send_json(
                    {"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"}
                )
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            if "/tree/" in path:
                return self.send_json(
                    [{"type": "file", "path": str(f.relative_to(folder)), "oid": "0", "size": f.stat().st_size}
                     for f in files]
                )  # fmt: skip
            siblings = [{"rfilename": str(f.relative_to(folder))} for f in files]
            return self.send_json(
                {"id": path, "sha": _COMMIT, "siblings": siblings, "tags": [], "private": False}
            )

        def _file(self) -> None:
            name = self.path.partition("/resolve/")[2].partition("/")[2]
            folder = self._folder(self.path.removeprefix("/"))
            content = (folder / name).read_bytes() if folder is not None else b""
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": _COMMIT}
            if self.command == "GET":
                hub.fetched.append(name)
            self.send(200, content, headers)

    with serving_here(Handler) as hub.address:
        yield hub
