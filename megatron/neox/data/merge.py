"""Several token datasets as one, their documents as they were."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron.neox.data.indexed import IndexedDataset, paths_of
from megatron.neox.data.indexed_writer import IndexedDatasetWriter
from megatron.neox.errors import DatasetError, InputError, OutputError, VocabularyError

log = logging.getLogger(__name__)

# What must be the same of all, for their ids to mean the same.
_DECISIVE = ("tokenizer", "append_eod", "eod")


def find_prefixes(inputs: Sequence[str]) -> list[str]:
    """The prefixes of datasets: as given, with or without an ending, or all in a folder, by their names.

    Raises:
        InputError: a folder holds no dataset, or a dataset is named twice.
    """
    prefixes: list[str] = []
    for given in inputs:
        if Path(given).is_dir():
            found = sorted(str(path.with_suffix("")) for path in Path(given).glob("*.idx"))
            if not found:
                raise InputError(f"{given} holds no .idx; tools/preprocess_data.py makes datasets")
            prefixes += found
        else:
            prefixes.append(given.removesuffix(".bin").removesuffix(".idx"))
    places = [Path(prefix).resolve() for prefix in prefixes]
    if twice := [prefix for number, prefix in enumerate(prefixes) if places[number] in places[:number]]:
        raise InputError(
            f"{twice[0]} is named twice, and its documents would be there twice; a dataset is named by its prefix alone"
        )
    return prefixes


def merge_datasets(prefixes: Sequence[str], output_prefix: str, *, overwrite: bool = False) -> None:
    """Write one dataset of all, in this order, with the borders of sequences and documents.

    Raises:
        DatasetError: one is damaged, or their ids are of several types.
        VocabularyError: they were made with several tokenizers, or ends of documents.
        OutputError: a dataset stands under the output prefix already, or is one of those to merge.
    """
    if Path(output_prefix).resolve() in [Path(prefix).resolve() for prefix in prefixes]:
        raise OutputError(
            f"{output_prefix} is one of the datasets to merge, which would be replaced; give another --output-prefix"
        )
    # All are opened now: one that is absent or damaged is told before gigabytes are copied.
    dtypes = [IndexedDataset(prefix).dtype for prefix in prefixes]
    metadata = [_metadata(prefix) for prefix in prefixes]
    told = [(prefix, one) for prefix, one in zip(prefixes, metadata) if one]
    for prefix, other in told[1:]:
        first, expected = told[0]
        if different := [key for key in _DECISIVE if other.get(key) != expected.get(key)]:
            raise VocabularyError(
                f"{prefix} and {first} were made with another {' and '.join(different)}: their ids do not mean "
                "the same; make one of them anew with tools/preprocess_data.py"
            )
    with IndexedDatasetWriter(output_prefix, dtypes[0], overwrite=overwrite) as writer:
        for prefix in prefixes:
            writer.merge(prefix)
        writer.metadata = {
            **{key: one[key] for _, one in told[:1] for key in _DECISIVE if key in one},
            "merged": [
                {"name": Path(prefix).name, **{k: v for k, v in one.items() if k not in _DECISIVE}}
                for prefix, one in zip(prefixes, metadata)
            ],
        }
    log.info(
        "%s.bin, .idx and .json: %s documents, %s tokens of %d datasets",
        output_prefix, f"{writer.num_documents:,}", f"{writer.num_tokens:,}", len(prefixes),
    )  # fmt: skip


def _metadata(prefix: str) -> dict[str, Any]:
    path = paths_of(prefix)[2]
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        log.info("%s is absent (a dataset made by another toolkit): its tokenizer is taken on trust", path)
        return {}
    except ValueError as error:
        raise DatasetError(
            f"{path} is damaged ({error}); make the dataset anew, or delete this file"
        ) from error
