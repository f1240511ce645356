"""Shards written anew without the rows that an earlier phase decided against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from megatron.neox.corpus.deduplication.parts import column, read_part, write_parts
from megatron.neox.corpus.parquet_files import open_parquet
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.shards import new_shard, read_batches, schema

NAMES = ("repository", "path", "language", "stars")
"""The columns that decide which of several copies stays."""
NAMED = pa.schema([schema().field(name) for name in NAMES])  # `schema` also keeps pandas out of this process


def num_rows(shards: Sequence[Path]) -> int:
    """Rows of all shards, from their footers.

    Raises:
        InputError: one is not a readable parquet file.
    """
    total = 0
    for shard in shards:
        with open_parquet(shard) as file:
            total += file.metadata.num_rows
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
    dropped, counts, start = read_part(drops, number), Counts(), 0
    fate = np.zeros(num_rows([shard]), np.uint8)  # 0 stays, else the reason's number from 1
    fate[column(dropped, "row")] = column(dropped, "reason") + 1
    with new_shard(output) as kept:
        for batch in read_batches(shard):
            fates = fate[start : start + batch.num_rows]
            start += batch.num_rows
            languages, sizes = batch.column("language").to_pylist(), batch.column("size").to_pylist()
            for language, size, code in zip(languages, sizes, fates.tolist()):
                if code:
                    counts.leave_out(reasons[int(code) - 1], language, size)
                else:
                    counts.keep(language, size)
            # Runs of rows that stay are written as they lie there, without a copy.
            edges = np.flatnonzero(np.diff(fates == 0, prepend=False, append=False))
            for first, end in edges.reshape(-1, 2).tolist():
                kept.write_batch(batch.slice(first, end - first))
    return counts
