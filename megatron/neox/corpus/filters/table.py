"""Thresholds by a file's ending, from a table in BigCode's form."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from megatron.neox.corpus.document import Document
from megatron.neox.corpus.filters.shape import LongLine, LongLines, NotAlphabetic, NotAlphanumeric
from megatron.neox.errors import InputError
from megatron.neox.plugins import filters

_COLUMNS = ("extension", "Include", "Long_line_threshold", "Alphanum_threshold", "Alpha filter")
_NAMES = {"C#": "c-sharp", "F#": "f-sharp"}


@filters.register("by_extension")
@dataclass(frozen=True, kw_only=True)
class ByExtension:
    """Longest line, mean line, letters and digits, letters: limits by language and ending, from a table.

    Args:
        table: a CSV file with the columns of visual_inspection.csv (bigcode-project/bigcode-dataset): language,
            extension, Include (1 keeps), Long_line_threshold, Alphanum_threshold and Alpha filter; what is no number
            there is no limit, and a limit of the longest line limits the mean too.
        max_mean_characters: of a line, where the longest is limited.
    """

    table: str
    max_mean_characters: float = 100.0

    def __post_init__(self) -> None:
        """Read the table at once, so that a mistake in it is told at once."""
        _read_table(self.table)

    def __call__(self, document: Document) -> str | None:
        """`extension` where the table leaves it out or does not name it, the limit's own reason, or None."""
        name = document.name.rpartition("/")[2]
        language = _NAMES.get(document.language, document.language.lower().replace(" ", "-"))
        row = _read_table(self.table).get((language, name.rpartition(".")[2] if "." in name else ""))
        if row is None or row["Include"].strip() != "1":
            return "extension"
        longest, share, letters = (_number(row[column]) for column in _COLUMNS[2:])
        reason = None
        if longest is not None:
            reason = LongLine(max_characters=int(longest))(document)
            reason = reason or LongLines(max_mean_characters=self.max_mean_characters)(document)
        if share is not None:
            reason = reason or NotAlphanumeric(min_share=share)(document)
        if letters is not None:
            reason = reason or NotAlphabetic(min_share=letters)(document)
        return reason


@lru_cache(maxsize=4)
def _read_table(path: str) -> Mapping[tuple[str, str], Mapping[str, str]]:
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"cannot read the table {path}: {error}; give the filter by_extension another"
        ) from error
    absent = [column for column in ("language", *_COLUMNS) if not rows or column not in rows[0]]
    if absent:
        raise InputError(
            f"{path} has no column {', '.join(absent)}; BigCode's visual_inspection.csv has them"
        )
    return {(row["language"], row["extension"]): row for row in rows}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
