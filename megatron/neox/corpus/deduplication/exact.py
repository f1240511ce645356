"""Exact copies left out of shards: of files with the same bytes one stays, whatever language or repository.

Phases: `keys` sorts digests, stars and names of each shard into buckets by digest; `index` does so with the digests of
indexes, 32 bytes each; `decide` finds the copies in one bucket of all; `write` drops them. On the disk a file takes
64 bytes and the length of its repository, path and language until the stage is finished; in memory a task holds one
bucket or one row group, whatever the corpus.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from megatron.neox.corpus.deduplication.parts import buckets_of, num_buckets, read_part, write_parts
from megatron.neox.corpus.deduplication.rewrite import (
    NAMED,
    NAMES,
    best_first,
    num_rows,
    numbered,
    write_drops,
    write_kept,
)
from megatron.neox.corpus.index.index import are_in, read_digests, require_index
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.rewriting import bytes_of, describe_input
from megatron.neox.corpus.stages.shards import find_shards, read_batches
from megatron.neox.corpus.stages.stage import Phase, Stage, fingerprint, work_folder

Key = Literal["raw", "normalized"]
_REASONS = ("duplicate", "in_index")
_WHITE = bytes(code for code in range(128) if chr(code).isspace())


@dataclass(frozen=True)
class ExactDuplicates:
    """What to deduplicate, and by what.

    Attributes:
        key: `raw`, the SHA-256 of the file's own bytes; or `normalized`, that of the text without white space, as
            CodeParrot compares files.
        against: indexes; files whose raw SHA-256 stands in one are left out too. They go with the raw key alone.
    """

    input: Path
    output: Path
    key: Key = "raw"
    against: Sequence[Path] = ()

    def stage(self) -> Stage:
        """The stage.

        Raises:
            InputError: the input is no finished folder of shards, or an index does not exist.
        """
        assert self.key == "raw" or not self.against
        for index in self.against:
            require_index(index)
        weight = partial(bytes_of, self._shards)
        phases = [
            Phase("keys", len(self._shards), self.sort_keys, weight),
            Phase("index", len(self.against), self.sort_index),
            Phase("decide", self._num_buckets, self.decide),
            Phase("write", len(self._shards), self.write, weight),
        ]
        settings: dict[str, Any] = {
            "input": describe_input(self.input),
            "key": self.key,
            "against": [fingerprint([index]) for index in self.against],
        }
        return Stage("deduplicate", self.output, settings, phases, inputs=[self.input, *self.against])

    @cached_property
    def _shards(self) -> list[Path]:
        return find_shards(self.input)

    @cached_property
    def _num_buckets(self) -> int:
        return num_buckets(num_rows(self._shards))

    def _work(self, kind: str, number: int) -> Path:
        return work_folder(self.output) / f"{kind}-{number:05d}"

    def sort_keys(self, number: int) -> None:
        """Digests of a shard, with what decides between copies."""
        columns = [*NAMES, "sha256" if self.key == "raw" else "content"]
        rows = numbered(map(self._keyed, read_batches(self._shards[number], columns)), _KEYED, number)
        bucket = buckets_of(_digests(rows)[:, 0], self._num_buckets)
        write_parts(self._work("keys", number), rows, bucket, self._num_buckets)

    def _keyed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self.key == "raw":
            keys = bytes.fromhex("".join(batch["sha256"].to_pylist()))
        else:
            keys = b"".join(digest_without_space(text) for text in batch["content"].to_pylist())
        array = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), batch.num_rows, [None, pa.py_buffer(keys)]
        )
        return pa.record_batch([*(batch[name] for name in NAMES), array], schema=_KEYED)

    def sort_index(self, number: int) -> None:
        """Digests of an index in a file for each bucket; the folder takes its name when it is whole."""
        folder = self._work("index", number)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        files = [(partial / str(bucket)).open("wb", buffering=0) for bucket in range(self._num_buckets)]
        try:
            for digests in read_digests(self.against[number]):
                part = buckets_of(digests.view("<u8")[:, 0], self._num_buckets)
                for bucket, file in enumerate(files):
                    file.write(digests[part == bucket].data)
        finally:
            for file in files:
                file.close()
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def decide(self, bucket: int) -> None:
        """Which rows of a bucket are copies, and which stand in an index."""
        keys = [self._work("keys", number) for number in range(len(self._shards))]
        rows = read_part(keys, bucket)
        digests = _digests(rows)
        in_index = np.zeros(len(digests), bool)
        for number in range(len(self.against)):
            listed = np.fromfile(self._work("index", number) / str(bucket), "S32")
            in_index |= are_in(digests.view("S32").ravel(), listed)
        again = _appear_again(digests[:, 0]) & ~in_index
        copies = best_first(rows.filter(pa.array(again)), "key")
        found = _digests(copies)
        is_copy = np.concatenate([[False], (found[1:] == found[:-1]).all(axis=1)])[: len(found)]
        dropped = pa.concat_tables([copies.filter(pa.array(is_copy)), rows.filter(pa.array(in_index))])
        reason = np.repeat([0, 1], [is_copy.sum(), in_index.sum()])
        write_drops(self._work("drops", bucket), dropped, reason, len(self._shards))

    def write(self, number: int) -> Counts:
        """A shard without the rows that any bucket decided against."""
        drops = [self._work("drops", bucket) for bucket in range(self._num_buckets)]
        shard = self._shards[number]
        return write_kept(shard, number, self.output / shard.name, drops, _REASONS)


_KEYED = NAMED.append(pa.field("key", pa.binary(32)))


def digest_without_space(text: str) -> bytes:
    """SHA-256 of a text without white space, of Unicode's too."""
    if text.isascii():
        return hashlib.sha256(text.encode().translate(None, _WHITE)).digest()
    return hashlib.sha256("".join(text.split()).encode()).digest()


def _digests(rows: pa.Table) -> np.ndarray:
    """The keys as numbers, [n, 4] uint64."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[32 * chunk.offset : 32 * (chunk.offset + len(chunk))]
        for chunk in rows.column("key").chunks
        if len(chunk)
    ]
    return np.concatenate([*chunks, np.empty(0, np.uint8)]).view("<u8").reshape(-1, 4)


def _appear_again(numbers: np.ndarray) -> np.ndarray:
    """Which of the numbers stand more than once among them."""
    _, places, times = np.unique(numbers, return_inverse=True, return_counts=True)
    return times[places] > 1
