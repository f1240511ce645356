"""Parquet files, of ours and of others: opened with their mistakes told, read a bounded part at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.neox.errors import InputError

if TYPE_CHECKING:
    import pyarrow

_BYTES_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 64  # rows of code are a few kB, some a few MB, and such may stand together


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """The file as a `pyarrow.parquet.ParquetFile`.

    Raises:
        InputError: it is not parquet, or damaged, which may show while it is read.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        # A row group would be read whole otherwise, and many files have a single one.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BYTES_AT_ONCE) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path} is not a readable parquet file: {reason}; fetch or write it again"
        ) from error


def batches_of(
    file: Any,
    columns: Collection[str],
    *,
    groups: Iterable[int] | None = None,
    num_rows: int = _ROWS_AT_ONCE,
) -> Iterator[pyarrow.RecordBatch]:
    """Rows as arrow data: as many at once as are about a mebibyte, by what the file says of their row group.

    Each row group is read by itself: one of large rows needs few at once, and the others many.

    Args:
        file: as `open_parquet` gives it.
        groups: row groups to read, in their order; none reads all.
        num_rows: the most at once, whatever they weigh.
    """
    import pyarrow

    for group in range(file.num_row_groups) if groups is None else groups:
        # Files are read side by side already; each thread would keep a heap of its own.
        for batch in file.iter_batches(
            rows_at_once(file, columns, group, num_rows), [group], list(columns), use_threads=False
        ):
            pyarrow.default_memory_pool().release_unused()  # what it keeps would grow with the number of row groups
            yield batch


def rows_at_once(file: Any, columns: Collection[str], group: int, most: int) -> int:
    """How many rows of a row group are about a mebibyte, in these columns; at least one, and no more than `most`."""
    metadata = file.metadata.row_group(group)
    parts = map(metadata.column, range(metadata.num_columns))
    num_bytes = sum(
        part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns
    )
    return max(1, min(most, _BYTES_AT_ONCE * metadata.num_rows // max(num_bytes, 1)))
