"""Shards of given files, and what is in shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from megatron.neox.corpus.stages.shards import SourceFile, find_shards, new_shard, read_shard, shard_name


def source(
    text: str,
    path: str,
    *,
    repository: str = "org/project",
    stars: int | None = None,
    language: str = "Python",
) -> SourceFile:
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()
    return SourceFile(repository, language, path, digest, len(data), stars, ["MIT"], None, False, text)


def write_shards(folder: Path, *shards: Iterable[SourceFile]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, files in enumerate(shards):
        with new_shard(folder / shard_name(number)) as shard:
            for file in files:
                shard.write(file)
    return folder


def read_all(folder: Path) -> list[SourceFile]:
    return [file for shard in find_shards(folder) for file in read_shard(shard)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
