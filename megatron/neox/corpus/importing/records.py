"""Rows of other people's parquet and JSON lines files, a bounded number at once, as mappings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron.neox.corpus.parquet_files import batches_of, open_parquet
from megatron.neox.corpus.readers.jsonl import lines_of, open_lines
from megatron.neox.corpus.readers.text_column import plain
from megatron.neox.errors import InputError, did_you_mean

ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".json.gz", ".json.zst")


def read_records(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers, from 1; of parquet only the columns that are asked for are read.

    Args:
        needed: columns that must be there; JSON lines after the first may lack some.

    Raises:
        InputError: not a file of its kind, damaged, or without a column; the message names it.
    """
    if path.name.lower().endswith(".parquet"):
        yield from _parquet_rows(path, needed)
    else:
        yield from _json_rows(path, needed)


def num_parquet_rows(path: Path, needed: Sequence[str]) -> int:
    """How many rows a parquet file says it has, once its columns are checked.

    Raises:
        InputError: as `read_records`.
    """
    with open_parquet(path) as file:
        _check(path, needed, file.schema_arrow.names)
        return file.metadata.num_rows


def _parquet_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_parquet(path) as file:
        _check(path, needed, file.schema_arrow.names)
        number = 0
        for batch in batches_of(file, needed):
            for values in zip(*map(_values, batch.columns)):
                number += 1
                yield number, dict(zip(batch.schema.names, values))


def _values(column: Any) -> list[Any]:
    """The cells of a column; of texts, those that are no UTF-8 as bytes."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        cells = (cell.as_buffer().to_pybytes() if cell.is_valid else None for cell in plain(column))
        return [None if cell is None else _text_of(cell) for cell in cells]


def _text_of(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _check(path: Path, needed: Sequence[str], names: Sequence[str]) -> None:
    for name in needed:
        if name not in names:
            raise InputError(
                f"{path} has no column {name}{did_you_mean(name, names)}; it has: {', '.join(names)}"
            )


def _json_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_lines(path) as lines:
        for number, line in enumerate(lines_of(lines, path), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path}:{number}: not JSON: {error}; one object a line is expected"
                ) from error
            if not isinstance(row, dict):
                raise InputError(
                    f"{path}:{number}: not an object but {line[:60]!r}; one object a line is expected"
                )
            # Lines may leave out what they have no value for; of the first, it is rather the name that is wrong.
            if number == 1:
                _check(path, needed, list(row))
            yield number, row


def text_list(value: Any, where: str) -> list[str]:
    """Texts of a text, of a list of them, or of lists within lists; nulls are passed over.

    Raises:
        InputError: there is something else in it.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in text_list(part, where)]
    raise InputError(f"{where} holds {type(value).__name__}, not text or lists of texts")


def whole_number(value: Any, where: str) -> int | None:
    """A number of a number or of its digits; None of null and of not-a-number.

    Raises:
        InputError: it is something else, or has more than 32 bits.
    """
    if value is None or value != value:
        return None
    try:
        if abs(number := int(value)) >= 1 << 31:
            raise OverflowError
        return number
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} holds {value!r}, not a number") from error


def first_text(row: Mapping[str, Any], column: str | None, where: str) -> str | None:
    """The text in a column; None where there is no such column, or nothing in it.

    Raises:
        InputError: it holds something else.
    """
    value = row.get(column) if column else None
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {column} holds {type(value).__name__}, not text")
    return value
