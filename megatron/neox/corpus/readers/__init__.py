"""Where documents come from: one kind of input a file, plugins of kind `reader`.

A reader is a function `(path, tally, *, options) -> Iterator[Document]`; `tally` counts what it leaves out. One that
has the option `part` reads a piece of its input, as `parts_of` names it, so that several processes share an input.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.readers.directory import directory_parts, has_several_parts, read_directory
from megatron.neox.corpus.readers.jsonl import jsonl_parts, read_jsonl
from megatron.neox.corpus.readers.parquet import parquet_parts, read_parquet
from megatron.neox.corpus.readers.text import read_text
from megatron.neox.corpus.stages.shards import find_shards
from megatron.neox.corpus.stages.stage import SUMMARY
from megatron.neox.errors import InputError

__all__ = [
    "has_several_parts",
    "inputs_of",
    "parts_of",
    "read_directory",
    "read_jsonl",
    "read_parquet",
    "read_text",
    "reader_name",
]

_JSONL_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".ndjson")


def reader_name(path: Path) -> str:
    """Name of the reader for a path: directory, jsonl, parquet or text.

    Raises:
        InputError: there is nothing at the path, or it is neither file nor folder.
    """
    if path.is_dir():
        return "directory"
    if not path.exists():
        raise InputError(f"the input {path} does not exist (looked for {path.absolute()})")
    if not path.is_file():
        raise InputError(f"the input {path} is neither a file nor a folder")
    name = path.name.lower()
    if name.endswith(_JSONL_ENDINGS):
        return "jsonl"
    return "parquet" if name.endswith(".parquet") else "text"


def inputs_of(path: Path) -> list[tuple[str, Path]]:
    """Reader and path of what a path stands for; a folder that a stage wrote is its shards.

    Raises:
        InputError: as `reader_name`, or the stage is not finished.
    """
    is_stages = (path / SUMMARY).is_file() or (path / ".stage").is_dir()
    if is_stages and any(path.glob("*.parquet")):
        return [("parquet", shard) for shard in find_shards(path)]
    return [(reader_name(path), path)]


def parts_of(
    name: str,
    path: Path,
    tally: Tally,
    *,
    seed: int | None = None,
    extensions: Sequence[str] = (),
    exclude: Collection[str] = (),
) -> Iterator[Any]:
    """Pieces of an input of about a hundred mebibytes at most, for the option `part` of its reader, as JSON knows them.

    What `tally` counts here, such as links in a folder, the reader of a piece does not count again.

    Raises:
        InputError: the input cannot be read.
    """
    if name == "directory":
        return directory_parts(path, tally, seed=seed, extensions=extensions, exclude=exclude)
    if name == "parquet":
        return parquet_parts(path)
    if name == "jsonl":
        return jsonl_parts(path)
    return iter([None])
