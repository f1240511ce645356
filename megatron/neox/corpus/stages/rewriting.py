"""Shards to shards of the same names: rows are dropped or changed, a bounded number in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.neox.corpus.document import Document
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.shards import find_shards, holds_rows, new_shard, read_batches
from megatron.neox.corpus.stages.stage import SUMMARY, fingerprint
from megatron.neox.errors import InputError

if TYPE_CHECKING:
    import pyarrow


def describe_input(folder: Path) -> dict[str, Any]:
    """What a stage's settings say of a folder of shards: how many, and a hash that tells them apart.

    Raises:
        InputError: as `find_shards`; or there is no row in any shard.
    """
    shards = find_shards(folder)
    if not any(map(holds_rows, shards)):
        raise InputError(
            f"{folder} holds no file: its shards are empty; was all of it left out? {SUMMARY} there says why"
        )
    summary = folder / SUMMARY
    return {"shards": len(shards), "sha256": fingerprint([summary] if summary.is_file() else shards)}


def bytes_of(shards: Sequence[Path], number: int) -> int:
    """Size of a shard: about how long a task that reads it takes, for `Phase`."""
    return shards[number].stat().st_size


def rewrite_shard(
    source: Path, target: Path, change: Callable[[pyarrow.RecordBatch], pyarrow.RecordBatch]
) -> None:
    """Write what `change` gives for the rows of `source`, some at once."""
    with new_shard(target) as shard:
        for batch in read_batches(source):
            shard.write_batch(change(batch))


def drop_rows(
    source: Path, target: Path, reasons: Callable[[pyarrow.RecordBatch], Iterable[str | None]]
) -> Counts:
    """Write the rows of `source` that nothing speaks against; count both kinds.

    Args:
        reasons: of some rows, in their order: why each is left out; None keeps it.
    """
    import pyarrow as pa

    counts = Counts()

    def keep(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        mask: list[bool] = []
        names, sizes = batch.column("language").to_pylist(), batch.column("size").to_pylist()
        for language, size, reason in zip(names, sizes, reasons(batch), strict=True):
            mask.append(reason is None)
            if reason is None:
                counts.keep(language, size)
            else:
                counts.leave_out(reason, language, size)
        return batch.filter(pa.array(mask, pa.bool_()))

    rewrite_shard(source, target, keep)
    return counts


def documents(batch: pyarrow.RecordBatch) -> Iterator[Document]:
    """The rows of a batch as what filters look at."""
    import pyarrow as pa

    content = batch.column("content").cast(pa.binary())
    columns = [
        batch.column(name).to_pylist() for name in ("path", "language", "licenses", "stars", "vendored")
    ]
    for data, path, language, licenses, stars, vendored in zip(content.to_pylist(), *columns):
        yield Document(path, data, False, language, tuple(licenses or ()), stars, bool(vendored))
