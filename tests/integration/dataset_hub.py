"""A server on this machine that speaks as much of the Hugging Face hub's HTTP as streaming a dataset needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.integration.loopback import QuietHandler, serving_here

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_dataset(name: str, folder: Path, seen: list[str]) -> Iterator[str]:
    """Offer `folder` as the dataset `name` while the block runs; `seen` gets the files whose bytes were asked for."""

    class Handler(QuietHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path, _, query = unquote(self.path).partition("?")
            if "/tree/" in path:
                return self._tree(
                    path.partition("/tree/")[2].partition("/")[2], "recursive=true" in query.lower()
                )
            if path.startswith(f"/api/datasets/{name}"):
                files = [
                    {"rfilename": str(file.relative_to(folder))} for file in sorted(folder.rglob("*.parquet"))
                ]
                return self.send_json(
                    {"id": name, "sha": _COMMIT, "private": False, "tags": [], "siblings": files}
                )
            if path.startswith(f"/datasets/{name}/resolve/"):
                return self._file(path.partition("/resolve/")[2].partition("/")[2])
            return self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
            self.send_json([self._entry(folder / path) for path in asked if (folder / path).exists()])

        def _entry(self, path: Path) -> dict[str, Any]:
            kind = "directory" if path.is_dir() else "file"
            return {
                "type": kind,
                "path": str(path.relative_to(folder)),
                "oid": "0",
                "size": path.stat().st_size,
            }

        def _tree(self, below: str, is_deep: bool) -> None:
            base = folder / below
            if not base.is_dir():
                return self.send_json({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            found = sorted(base.rglob("*") if is_deep else base.iterdir())
            return self.send_json([self._entry(path) for path in found])

        def _file(self, file: str) -> None:
            if not (folder / file).is_file():
                return self.send_json({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            content, status = (folder / file).read_bytes(), 200
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": _COMMIT}
            if asked := self.headers.get("Range"):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                stop = min(int(last or len(content)) + 1, len(content))
                headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(content)}"
                content, status = content[int(first) : stop], 206
            if self.command == "GET":
                seen.append(file)
            return self.send(status, content, headers)

    with serving_here(Handler) as address:
        yield address
