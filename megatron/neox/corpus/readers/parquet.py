"""Parquet: one row a document, its text in a column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.errors import InputError, did_you_mean
from megatron.neox.plugins import readers

_ROWS_AT_ONCE = 256  # bounds memory: rows of code are a few kB, some a few MB


@readers.register("parquet")
def read_parquet(path: Path, tally: Tally, *, column: str = "text") -> Iterator[Document]:
    """The text in `column` of each row is a document; null cells are left out, counted as no_text.

    Raises:
        InputError: not a parquet file, no such column, or a column of something other than text or bytes.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_column(file.schema_arrow, column, path)
            row = 0
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
                for cell in batch.column(0):
                    row += 1
                    if cell.is_valid:
                        yield Document(f"{path}:{row}", cell.as_buffer().to_pybytes(), is_file=False)
                    else:
                        tally.skip("no_text")
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} is not a readable parquet file: {error}; fetch or write it again"
        ) from error


def _check_column(schema: Any, column: str, path: Path) -> None:
    from pyarrow import types

    if column not in schema.names:
        raise InputError(
            f"{path} has no column {column}{did_you_mean(column, schema.names)}; "
            f"--text-column takes one of: {', '.join(schema.names)}"
        )
    kind = schema.field(column).type
    is_text = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    if not any(check(kind) for check in is_text):
        raise InputError(f"{path}: the column {column} holds {kind}, not text; --text-column names another")
