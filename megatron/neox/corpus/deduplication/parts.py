"""Tables sorted into numbered parts on the disk, so that a later task reads one part of every file and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from megatron.neox.files import appearing

# Rows that one task holds at once; what a bucket needs of memory follows from it, not from the corpus.
BUCKET_ROWS = 400_000


def num_buckets(num_rows: int) -> int:
    """How many parts to make of so many rows."""
    return max(1, -(-num_rows // BUCKET_ROWS))


def buckets_of(hashes: np.ndarray, num_parts: int) -> np.ndarray:
    """Parts by evenly spread 64-bit hashes, [n] uint64: their upper halves, scaled."""
    return ((hashes >> np.uint64(32)) * np.uint64(num_parts)) >> np.uint64(32)


def write_parts(path: Path, table: pa.Table, part: np.ndarray, num_parts: int) -> None:
    """Write an Arrow file with one record batch a part; rows keep their order within it.

    Args:
        part: [n], the part of each row.
    """
    order = np.argsort(part, kind="stable")
    bounds = np.searchsorted(part[order], np.arange(num_parts + 1))
    ordered = table.take(pa.array(order)).combine_chunks()
    with (
        appearing(path) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        for start, end in pairwise(bounds):
            # Without a chunk, an empty slice would leave out its batch, and shift the numbers of the others.
            (batch,) = ordered.slice(start, end - start).to_batches() or [_empty(table.schema)]
            writer.write_batch(batch)


def read_part(paths: Sequence[Path], part: int) -> pa.Table:
    """One part of all files, in their order."""
    batches = []
    for path in paths:
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            batches.append(reader.get_batch(part))
    return pa.Table.from_batches(batches).combine_chunks()


def column(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers."""
    return table.column(name).to_numpy()


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema)
