"""Sketches on the disk: those of a shard's files in one file, mapped into memory to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from megatron.neox.corpus.deduplication.clusters import are_among
from megatron.neox.corpus.deduplication.shingles import Shingles
from megatron.neox.corpus.deduplication.sketches import Sketch, Sketches, sketches
from megatron.neox.files import appearing

SKETCHES = pa.schema({"file": pa.uint64(), "least": pa.list_(pa.uint32()), "end": pa.uint32()})


def sketch_batch(files: np.ndarray, shingles: Shingles) -> pa.RecordBatch:
    """Sketches of texts, whose files have these numbers, [texts] uint64."""
    made = sketches(shingles)
    least = pa.ListArray.from_arrays(pa.array(made.bounds, pa.int32()), pa.array(made.least))
    return pa.record_batch([pa.array(files), least, pa.array(made.ends)], schema=SKETCHES)


def write_sketches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write what `sketch_batch` gave."""
    with (
        appearing(path) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, SKETCHES) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def read_sketches(paths: Sequence[Path], files: np.ndarray) -> list[Sketch]:
    """Sketches of files that these hold, in the order of their numbers.

    Args:
        files: different, sorted, uint64.
    """
    found: dict[int, Sketch] = {}
    for path in paths:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        for number in range(reader.num_record_batches):
            names, lists, ends = reader.get_batch(number).columns
            made = Sketches(lists.values.to_numpy(), lists.offsets.to_numpy(), ends.to_numpy())
            names = names.to_numpy()
            for place in np.flatnonzero(are_among(names, files)).tolist():
                found[int(names[place])] = made[place]
    return [found[file] for file in files.tolist()]
