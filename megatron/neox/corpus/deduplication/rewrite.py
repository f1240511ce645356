"""Shards written anew without the rows that an earlier phase decided against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from megatron.neox.corpus.counts import Counts
from megatron.neox.corpus.deduplication.parts import column, read_part, write_parts
from megatron.neox.corpus.shards import new_shard, read_batches
from megatron.neox.corpus.stage import SUMMARY, fingerprint
from megatron.neox.errors import InputError

NAMES = ("repository", "path", "language", "stars")
"""The columns that decide which of several copies stays."""

_BATCH_ROWS = 256
_ROW_GROUP_BYTES = 32 << 20


def input_identity(folder: Path, shards: Sequence[Path]) -> str:
    """What a stage's settings say of the shards that it reads."""
    summary = folder / SUMMARY
    return fingerprint([summary] if summary.exists() else shards)


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
        reason: [n], index into the reasons that `rewrite_shard` is given.
    """
    table = pa.table({"row": rows["row"], "reason": reason.astype(np.uint8)})
    write_parts(path, table, column(rows, "shard"), num_shards)


def rewrite_shard(
    shard: Path, number: int, output: Path, drops: Sequence[Path], reasons: Sequence[str]
) -> Counts:
    """Write `output`, the shard without the rows that `drops` name; count both."""
    dropped = read_part(drops, number)
    rows, codes = column(dropped, "row"), column(dropped, "reason").astype(np.int64) + 1
    counts, start = Counts(), 0
    with new_shard(output) as writer:
        for group in _groups(read_batches(shard, num_rows=_BATCH_ROWS)):
            fate = np.zeros(group.num_rows, np.int64)  # 0: kept
            here = (rows >= start) & (rows < start + group.num_rows)
            fate[rows[here] - start] = codes[here]
            start += group.num_rows
            _count(counts, group, fate, reasons)
            kept = group.filter(pa.array(fate == 0)).combine_chunks()
            for batch in kept.to_batches():
                writer.write_batch(batch)
    return counts


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches put together into row groups of a reader's size."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(part.nbytes for part in waiting) >= _ROW_GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _count(counts: Counts, rows: pa.Table, fate: np.ndarray, reasons: Sequence[str]) -> None:
    table = pa.table({"language": rows["language"], "size": rows["size"], "fate": fate})
    sums = table.group_by(["language", "fate"]).aggregate([("size", "count"), ("size", "sum")])
    names = ("language", "fate", "size_count", "size_sum")
    for language, code, num_files, num_bytes in zip(*(sums.column(name).to_pylist() for name in names)):
        amounts = counts.left_out[reasons[int(code) - 1]] if code else counts.kept
        amounts[str(language)].add(num_files, num_bytes)
