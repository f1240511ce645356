"""Parquet: one row a document, its text in a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.parquet_files import batches_of, open_parquet
from megatron.neox.corpus.readers.text_column import holds_bytes, holds_text, plain
from megatron.neox.errors import InputError, did_you_mean
from megatron.neox.plugins import readers

_PART_BYTES = 64 << 20


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
        for batch in batches_of(file, [column], groups=groups):
            for cell in plain(batch.column(0)):
                row += 1
                if cell.is_valid:
                    yield Document(f"{path}:{row}", cell.as_buffer().to_pybytes(), is_file=False)
                else:
                    tally.skip("no_text")


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
