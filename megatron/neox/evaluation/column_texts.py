"""Texts of records and files, one after the other: from this machine, or from the Hugging Face hub as they arrive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.readers import reader_name
from megatron.neox.corpus.texts import usable_texts
from megatron.neox.errors import DependencyError, InputError, did_you_mean
from megatron.neox.plugins import readers


def local_texts(path: Path, column: str, tally: Tally) -> Iterator[str]:
    """Texts of a folder's files, or of the records of .parquet and .jsonl (also .gz, .zst) files.

    Args:
        column: column or key of records.
        tally: counts them, and what is left out.

    Raises:
        InputError: there is nothing at the path, no such column, or a record is damaged.
    """
    if not path.exists():
        raise InputError(f"eval_data_path {path} does not exist (looked for {path.absolute()})")
    name = reader_name(path)
    options = {"parquet": {"column": column}, "jsonl": {"key": column}}.get(name, {})
    texts = usable_texts(readers.build(name, path, tally, options=options), tally)
    found = False
    for text in texts:
        found = True
        yield text
    if not found and tally.skipped["no_text"]:
        raise InputError(
            f"{path}: no record has a text under {column!r}; the option column names another key"
        )


def hub_texts(dataset: str, split: str, column: str, tally: Tally) -> Iterator[str]:
    """Texts of a dataset on the hub, streamed; a token is taken from HF_TOKEN.

    Raises:
        DependencyError: the package datasets is not installed.
        InputError: the hub has no such dataset or split, cannot be reached, or a record has no such column.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DependencyError(f"the option dataset needs pip install datasets ({error})") from error
    try:
        stream: Any = load_dataset(
            dataset, split=split, streaming=True, token=os.environ.get("HF_TOKEN") or None
        )
        for number, record in enumerate(stream, 1):
            text = record.get(column)
            if not isinstance(text, str):
                raise InputError(
                    f"{dataset}, {split}, record {number}: no text under {column!r}{did_you_mean(column, record)}; "
                    f"the option column takes one of: {', '.join(record)}"
                )
            tally.num_documents += 1
            tally.num_bytes += len(text.encode("utf-8", "surrogatepass"))
            yield text
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the dataset {dataset} cannot be read: {type(error).__name__}: {error}; check its name, the network, "
            "and HF_TOKEN where it needs one"
        ) from error
