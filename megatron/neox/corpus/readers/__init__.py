"""Where documents come from: one kind of input a file, plugins of kind `reader`.

A reader is a function `(path, tally, *, options) -> Iterator[Document]`; `tally` counts what it leaves out.
"""

from __future__ import annotations

from pathlib import Path

from megatron.neox.corpus.readers.directory import read_directory
from megatron.neox.corpus.readers.jsonl import read_jsonl
from megatron.neox.corpus.readers.parquet import read_parquet
from megatron.neox.corpus.readers.text import read_text
from megatron.neox.errors import InputError

__all__ = ["read_directory", "read_jsonl", "read_parquet", "read_text", "reader_name"]

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
