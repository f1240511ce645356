"""PolyCoder's tree of extracted files: LANGUAGE/org__project__folder__file, every file as its bytes were.

A name that could be that of two files, or is too long, gets `~` and sixteen digits of a hash before its ending: names
are what PolyCoder's are wherever those say which file it is.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from megatron.neox.corpus.extraction.checkouts import Checkout
from megatron.neox.corpus.extraction.resumption import keep_listings
from megatron.neox.corpus.extraction.source_files import ExtractSettings, extract_checkout
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.shards import escape_path
from megatron.neox.corpus.stages.stage import work_folder
from megatron.neox.files import appearing

INDEX = "index.txt"

_MOST_BYTES = 255  # of a name, on every file system
_LOOKS_HASHED = re.compile(rb"~[0-9a-f]{16}(\.[^.]*)?$")
_ENDING = re.compile(rb"\.[^.]{1,15}$")


def flat_names(repository: bytes, paths: Sequence[bytes]) -> list[bytes]:
    """Names of a repository's files in one folder, no two alike, and none that another repository could have.

    Args:
        repository: ORGANIZATION/PROJECT.
        paths: of its files in one language.
    """
    organization, _, project = repository.partition(b"/")
    is_clear = not any(b"__" in part or part.endswith(b"_") for part in (organization, project))
    plain = [(repository + b"/" + path).replace(b"/", b"__") for path in paths]
    times = Counter(plain)
    return [
        name
        if is_clear and times[name] == 1 and len(name) <= _MOST_BYTES and not _LOOKS_HASHED.search(name)
        else _hashed(name, repository + b"/" + path)
        for name, path in zip(plain, paths)
    ]


def _hashed(name: bytes, path: bytes) -> bytes:
    ending = match[0] if (match := _ENDING.search(name)) else b""
    tag = b"~" + sha256(path).hexdigest()[:16].encode() + ending
    return name[: len(name) - len(ending)][: _MOST_BYTES - len(tag)] + tag


@dataclass(frozen=True)
class FlatTreeTask:
    """Extracts some of the repositories to files, and lists them."""

    settings: ExtractSettings
    groups: tuple[tuple[Checkout, ...], ...]

    def __call__(self, number: int) -> Counts:
        """Write the files, each under its name when it is whole; return what became of all."""
        counts, listings = Counts(), list[str]()
        work = work_folder(self.settings.output)
        with appearing(work / f"index-{number:05d}.txt") as index, index.open("w", encoding="utf-8") as lines:
            for checkout in self.groups[number]:
                lines.writelines(self._write(checkout, work / f"files-{number:05d}", counts, listings))
        keep_listings(self.settings.output, number, listings)
        os.sync()  # the files' contents, before the task is said to be done
        return counts

    def _write(self, checkout: Checkout, folder: Path, counts: Counts, listings: list[str]) -> list[str]:
        """The files of a repository, first numbered, since their names depend on each other; lines of the index."""
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        folder.mkdir()
        by_language: dict[str, list[tuple[int, bytes, str]]] = {}
        for number, file in enumerate(extract_checkout(checkout, self.settings, counts, listings)):
            (folder / str(number)).write_bytes(file.data)
            by_language.setdefault(file.row.language, []).append((number, file.path, file.row.sha256))
        lines = []
        for language, files in by_language.items():
            target = os.path.join(os.fsencode(self.settings.output), language.encode())
            os.makedirs(target, exist_ok=True)
            names = flat_names(checkout.name, [path for _, path, _ in files])
            for name, (number, path, digest) in zip(names, files):
                os.replace(folder / str(number), os.path.join(target, name))
                lines.append(_line(language, checkout.name + b"/" + path, digest, name))
        folder.rmdir()
        return lines

    def index(self, number: int) -> None:
        """Join the tasks' lists."""
        del number
        work = work_folder(self.settings.output)
        with appearing(self.settings.output / INDEX) as index, index.open("wb") as lines:
            for part in range(len(self.groups)):
                lines.write((work / f"index-{part:05d}.txt").read_bytes())


def _line(language: str, path: bytes, digest: str, name: bytes) -> str:
    """PolyCoder's two columns, then the path that no name replaces, then the file below the tree."""
    key = escape_path(f"{language}/".encode() + path).replace("/", "__")
    return f"{key}\t{digest}\t{language}/{escape_path(path)}\t{language}/{escape_path(name)}\n"
