"""Shards written anew without the rows that an earlier phase decided against."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from megatron.neox.corpus.deduplication.parts import column, read_part, write_parts
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.rewriting import drop_rows
from megatron.neox.errors import InputError

NAMES = ("repository", "path", "language", "stars")
"""The columns that decide which of several copies stays."""


def num_rows(shards: Sequence[Path]) -> int:
    """Rows of all shards, from their footers.

    Raises:
        InputError: one is not a readable parquet file.
    """
    total = 0
    for shard in shards:
        try:
            total += parquet.read_metadata(shard).num_rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{shard} is not a readable parquet file: {error}; make it again") from error
    return total


def numbered(batches: Iterable[pa.RecordBatch], schema: pa.Schema, shard: int) -> pa.Table:
    """The batches of a shard, each row with the numbers of its shard and of itself."""
    rows = pa.Table.from_batches(list(batches), schema)
    rows = rows.append_column("shard", pa.array(np.full(rows.num_rows, shard, np.uint32)))
    return rows.append_column("row", pa.array(np.arange(rows.num_rows, dtype=np.uint32)))


def best_first(rows: pa.Table, group: str) -> pa.Table:
    """Rows sorted by group, and in each the one to keep first: most stars, then repository, path and language."""
    ranked = rows.set_column(rows.column_names.index("stars"), "stars", pc.fill_null(rows["stars"], -1))
    keys = [(group, "ascending"), ("stars", "descending")]
    keys += [(name, "ascending") for name in ("repository", "path", "language", "shard", "row")]
    return ranked.sort_by(keys)


def write_drops(path: Path, rows: pa.Table, reason: np.ndarray, num_shards: int) -> None:
    """Note rows to drop, by shard.

    Args:
        rows: with their numbers, as `numbered` gave them.
        reason: [n], index into the reasons that `write_kept` is given.
    """
    table = pa.table({"row": rows["row"], "reason": reason.astype(np.uint8)})
    write_parts(path, table, column(rows, "shard"), num_shards)


def write_kept(
    shard: Path, number: int, output: Path, drops: Sequence[Path], reasons: Sequence[str]
) -> Counts:
    """Write `output`, the shard without the rows that `drops` name; count both."""
    dropped = read_part(drops, number)
    fate = dict(zip(column(dropped, "row").tolist(), column(dropped, "reason").tolist()))
    rows = itertools.count()

    def reasons_of(batch: pa.RecordBatch) -> Iterator[str | None]:
        for _ in range(batch.num_rows):
            code = fate.get(next(rows))
            yield None if code is None else reasons[int(code)]

    return drop_rows(shard, output, reasons_of)
