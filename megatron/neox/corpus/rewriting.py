"""Shards to shards of the same names: rows are dropped or changed, a bounded number in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.neox.corpus.document import Document
from megatron.neox.corpus.shards import find_shards, new_shard, read_batches, schema
from megatron.neox.corpus.stage import SUMMARY, fingerprint

if TYPE_CHECKING:
    import pyarrow

_ROW_GROUP_BYTES = 32 << 20
_BATCH_ROWS = 64  # files of 1 MiB each are 64 MiB then


def describe_input(folder: Path) -> dict[str, Any]:
    """What a stage's settings say of a folder of shards: how many, and a hash that tells them apart.

    Raises:
        InputError: as `find_shards`.
    """
    shards = find_shards(folder)
    summary = folder / SUMMARY
    return {"shards": len(shards), "sha256": fingerprint([summary] if summary.is_file() else shards)}


def rewrite_shard(
    source: Path, target: Path, change: Callable[[pyarrow.RecordBatch], pyarrow.RecordBatch]
) -> None:
    """Write what `change` gives for a few hundred rows of `source` at once, in row groups of bounded size."""
    with new_shard(target) as shard:
        for group in _grouped(change(batch) for batch in read_batches(source, num_rows=_BATCH_ROWS)):
            shard.write_batch(group)


def _grouped(batches: Iterator[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
    waiting: list[pyarrow.RecordBatch] = []
    num_bytes = 0
    for batch in batches:
        waiting.append(batch)
        num_bytes += batch.nbytes
        if num_bytes >= _ROW_GROUP_BYTES:
            yield _joined(waiting)
            waiting, num_bytes = [], 0
    if any(batch.num_rows for batch in waiting):
        yield _joined(waiting)


def _joined(batches: Sequence[pyarrow.RecordBatch]) -> pyarrow.RecordBatch:
    import pyarrow as pa

    return pa.concat_batches([batch.cast(schema()) for batch in batches])


def documents(batch: pyarrow.RecordBatch) -> Iterator[Document]:
    """The rows of a batch as what filters look at; a text that is null is empty."""
    import pyarrow as pa

    content = batch.column("content").cast(pa.binary())
    columns = [
        batch.column(name).to_pylist() for name in ("path", "language", "licenses", "stars", "vendored")
    ]
    for number, (path, language, licenses, stars, vendored) in enumerate(zip(*columns)):
        data = content[number].as_py() or b""
        yield Document(path, data, False, language or "", tuple(licenses or ()), stars, bool(vendored))
