"""Whether a dataset was made with the tokenizer that this run uses, as far as is recorded."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from megatron.neox.data.pretokenize_folder import ORIGIN_NAME
from megatron.neox.errors import DatasetError, VocabularyError

log = logging.getLogger(__name__)


def check_tokenizer(
    prefixes: Iterable[str], *, fingerprint: Mapping[str, Any] | None, padded_vocab_size: int
) -> None:
    """Compare each dataset's recorded tokenizer with the run's.

    Args:
        fingerprint: of the run's tokenizer; None where the run has none, only a padded_vocab_size.

    Raises:
        VocabularyError: a dataset was made with another tokenizer, or its vocabulary is larger than the
            model's.
        DatasetError: PREFIX.json cannot be read.
    """
    for prefix in dict.fromkeys(prefixes):
        recorded = read_fingerprint(prefix)
        if recorded is None:
            log.info(
                "%s is absent (a dataset made by another toolkit): its tokenizer is taken on trust",
                _record_of(prefix),
            )
            continue
        if fingerprint is not None and (differences := _differences(recorded, fingerprint)):
            raise VocabularyError(
                f"{prefix} was made with another tokenizer than this run's: {'; '.join(differences)}\n"
                "  give the dataset's tokenizer_type, vocab_file, merge_file, merges_header and missing_bytes, or make "
                "it anew with tools/preprocess_data.py and this run's"
            )
        if (size := int(recorded.get("vocab_size", 0))) > padded_vocab_size:
            raise VocabularyError(
                f"{prefix} holds ids of a vocabulary of {size}, but padded_vocab_size is "
                f"{padded_vocab_size}; give the model at least {size} rows"
            )


def read_fingerprint(prefix: str) -> dict[str, Any] | None:
    """The tokenizer recorded of a dataset, or None where there is no such file or entry.

    Raises:
        DatasetError: the file is not JSON.
    """
    return _read(prefix, "tokenizer", dict)


def read_eod(prefix: str) -> int | None:
    """The id that ends each document, recorded in PREFIX.json; None where there is no such file or entry.

    Raises:
        DatasetError: the file is not JSON.
    """
    return _read(prefix, "eod", int)


def _read(prefix: str, key: str, kind: type) -> Any:
    path = _record_of(prefix)
    try:
        recorded = json.loads(path.read_text(encoding="utf-8")).get(key)
        if recorded is not None and not isinstance(recorded, kind):
            raise ValueError(f"{key} is {_short(recorded)}")
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path} is damaged ({error}); make the dataset anew, or delete this file"
        ) from error
    return recorded


def _record_of(prefix: str) -> Path:
    """Where the making of a dataset is told: PREFIX.json, or a file in a folder of fixed-length samples."""
    folder = Path(prefix)
    is_folder = folder.is_dir() and not Path(f"{prefix}.idx").exists()
    return folder / ORIGIN_NAME if is_folder else Path(f"{prefix}.json")


def _differences(recorded: Mapping[str, Any], running: Mapping[str, Any]) -> list[str]:
    """What differs, key by key, as `vocab_size 50257 in the dataset, 300 here`."""
    keys = [*recorded, *(key for key in running if key not in recorded)]
    return [
        f"{key} {_short(recorded.get(key))} in the dataset, {_short(running.get(key))} here"
        for key in keys
        if recorded.get(key) != running.get(key)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
