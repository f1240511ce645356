"""Parquet: one row a document, its text in a column."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.readers.text_column import holds_bytes, holds_text, plain
from megatron.neox.errors import InputError, did_you_mean
from megatron.neox.plugins import readers

_PART_BYTES = 64 << 20
_ROWS_AT_ONCE = 64  # bounds memory: rows of code are a few kB, some a few MB
_BYTES_AT_ONCE = 1 << 20


def parquet_parts(path: Path) -> Iterator[list[int]]:
    """Row groups, the first and the one behind the last of each piece.

    Raises:
        InputError: not a parquet file.
    """
    with open_parquet(path) as file:
        first, num_bytes = 0, 0
        for number in range(file.num_row_groups):
            num_bytes += file.metadata.row_group(number).total_byte_size
            if num_bytes >= _PART_BYTES:
                yield [first, number + 1]
                first, num_bytes = number + 1, 0
        if first < file.num_row_groups:
            yield [first, file.num_row_groups]


@readers.register("parquet")
def read_parquet(
    path: Path, tally: Tally, *, column: str | None = None, part: Sequence[int] | None = None
) -> Iterator[Document]:
    """The text in `column` of each row is a document; null cells are left out, counted as no_text.

    Args:
        column: none is `text`, or `content` where there is no column of that name.
        part: row groups to read, the first and the one behind the last; none reads all.

    Raises:
        InputError: not a parquet file, no such column, or a column of something other than text or bytes.
    """
    with open_parquet(path) as file:
        column = _chosen_column(file.schema_arrow, column, path)
        groups = range(*part) if part else range(file.num_row_groups)
        row = sum(file.metadata.row_group(number).num_rows for number in range(groups.start))
        for cell in _cells(file, column, groups):
            row += 1
            if cell.is_valid:
                yield Document(f"{path}:{row}", cell.as_buffer().to_pybytes(), is_file=False)
            else:
                tally.skip("no_text")


def _cells(file: Any, column: str, groups: range) -> Iterator[Any]:
    """Those of some row groups, each read by itself: one of large rows needs few at once, and the others many."""
    import pyarrow

    for group in groups:
        num_rows = rows_at_once(
            file, [column], _ROWS_AT_ONCE, range(group, group + 1), most_bytes=_BYTES_AT_ONCE
        )
        # Files are read side by side already; each thread would keep a heap of its own.
        for batch in file.iter_batches(num_rows, [group], [column], use_threads=False):
            pyarrow.default_memory_pool().release_unused()  # or what is kept grows with the number of row groups
            yield from plain(batch.column(0))


def rows_at_once(
    file: Any, columns: Collection[str], most: int, groups: range | None = None, *, most_bytes: int = 64 << 20
) -> int:
    """How many rows to read at once: `most`, or as many as are `most_bytes` by what the file says of its row groups.

    Args:
        groups: those that are read; none is all.
    """
    largest = 0.0
    for number in range(file.metadata.num_row_groups) if groups is None else groups:
        group = file.metadata.row_group(number)
        parts = map(group.column, range(group.num_columns))
        sizes = (
            part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns
        )
        largest = max(largest, sum(sizes) / max(group.num_rows, 1))
    return max(1, min(most, int(most_bytes / max(largest, 1))))


@contextmanager
def open_parquet(path: Path, **options: Any) -> Iterator[Any]:
    """The file, by the options of `ParquetFile`.

    Raises:
        InputError: it is not parquet, or damaged, which may show while it is read.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False, **options) as file:  # else a whole row group at once
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} is not a readable parquet file: {error}; fetch or write it again"
        ) from error


def _chosen_column(schema: Any, column: str | None, path: Path) -> str:
    if column is None:
        column = next((name for name in ("text", "content") if name in schema.names), "text")
    _check_column(schema, column, path)
    return column


def _check_column(schema: Any, column: str, path: Path) -> None:
    if column not in schema.names:
        raise InputError(
            f"{path} has no column {column}{did_you_mean(column, schema.names)}; "
            f"--text-column takes one of: {', '.join(schema.names)}"
        )
    kind = schema.field(column).type
    if not (holds_text(kind) or holds_bytes(kind)):
        raise InputError(f"{path}: the column {column} holds {kind}, not text; --text-column names another")
