"""Near copies left out of shards: of files that are nearly the same one stays.

MinHash with locality-sensitive hashing proposes pairs, Jaccard's index of their shingles settles them, and whatever
is linked by settled pairs is a cluster, of which one file stays: the one with the most stars, then the first by
repository and path. A chain is one cluster, though its ends may differ by more than any pair does.

Phases: `keys` gives each file its keys; `pairs` finds, in one bucket of keys of all shards, the files that meet;
`sketch` reads those files again and keeps the hashes of their shingles, unless `keys` did so; `verify` compares;
`cluster` links, in one task; `write` drops.

Of the disk a file takes 25 bytes a key until the stage is finished (32 keys: 800), and one that meets another up to
16 KiB more; where single words are compared every file takes 4 bytes a different word. In memory a task holds the
signatures (1 KiB a file), keys and words of one shard, one bucket, or one row group; `cluster` 16 bytes a settled pair,
and for a file in such a pair 40 and the length of its repository, path and language.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from megatron.neox.corpus.deduplication.clusters import are_among, components, different, distinct, meeting
from megatron.neox.corpus.deduplication.minhash import band_keys, signatures
from megatron.neox.corpus.deduplication.near_settings import PRESETS, NearSettings
from megatron.neox.corpus.deduplication.parts import buckets_of, column, num_buckets, read_part, write_parts
from megatron.neox.corpus.deduplication.rewrite import (
    NAMED,
    NAMES,
    best_first,
    num_rows,
    write_drops,
    write_kept,
)
from megatron.neox.corpus.deduplication.shingles import Shingles, mix, shingle, slices
from megatron.neox.corpus.deduplication.sketch_files import (
    SKETCHES,
    read_sketches,
    sketch_batch,
    write_sketches,
)
from megatron.neox.corpus.deduplication.sketches import jaccard, may_reach
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.rewriting import bytes_of, describe_input
from megatron.neox.corpus.stages.shards import find_shards, read_batches
from megatron.neox.corpus.stages.stage import Phase, Stage, work_folder

_LEAST_BUCKETS = 4  # of the smallest corpus, so that its workers share the pairs
_ROW_BITS = np.uint64(32)


@dataclass(frozen=True)
class NearDuplicates:
    """Shards to leave near copies out of."""

    input: Path
    output: Path
    near: NearSettings = PRESETS["bytes"]

    def stage(self) -> Stage:
        """The stage.

        Raises:
            InputError: the input is no finished folder of shards.
        """
        num_shards, weight = len(self._shards), partial(bytes_of, self._shards)
        phases = [
            Phase("keys", num_shards, self.make_keys, weight),
            Phase("pairs", self._num_buckets, self.pair),
            Phase("sketch", num_shards, self.sketch, weight),
            Phase("verify", self._num_buckets, self.verify),
            Phase("cluster", 1, self.cluster),
            Phase("write", num_shards, self.write, weight),
        ]
        settings = {"input": describe_input(self.input), **asdict(self.near), "buckets": self._num_buckets}
        return Stage("deduplicate_near", self.output, settings, phases, inputs=[self.input])

    @cached_property
    def _shards(self) -> list[Path]:
        return find_shards(self.input)

    @cached_property
    def _num_buckets(self) -> int:
        return max(_LEAST_BUCKETS, num_buckets(num_rows(self._shards) * self.near.bands))

    @cached_property
    def _sketches_all(self) -> bool:
        """Whether all files are sketched while they are at hand, and not those that met others read again.

        Of single words a file has few that differ, so that its sketch takes about as much as its keys.
        """
        return self.near.shingling.unit == "words" and self.near.shingling.size == 1

    def _work(self, kind: str, number: int = 0) -> Path:
        return work_folder(self.output) / f"{kind}-{number:05d}"

    def _all(self, kind: str) -> list[Path]:
        """The files that all tasks of a phase wrote."""
        num_tasks = len(self._shards) if kind in ("keys", "sketch") else self._num_buckets
        return [self._work(kind, number) for number in range(num_tasks)]

    def _shingles(
        self, shard: int, wanted: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, Shingles]]:
        """Row numbers and shingles of a shard's files, or of the rows that are wanted, some at once."""
        start = 0
        for batch in read_batches(self._shards[shard], ["content"]):
            rows = np.arange(start, start + batch.num_rows, dtype=np.uint64)
            start += batch.num_rows
            if wanted is not None:
                rows = rows[are_among(rows, wanted)]
                batch = batch.take(pa.array(rows - (start - batch.num_rows)))
            texts = batch.column(0).cast(pa.binary()).to_pylist()
            for part in slices(texts):
                yield rows[part], shingle(texts[part], self.near.shingling)

    def make_keys(self, shard: int) -> None:
        """Keys of a shard's files, and sketches of all where they take little.

        `content` is the same for files with the same shingles.
        """
        bands = self.near.bands
        signed, contents, files, made = [], [_NONE], [_NONE], []
        for rows, shingles in self._shingles(shard):
            has_any = np.diff(shingles.bounds) > 0
            signed.append(signatures(shingles, self.near.num_hashes)[has_any])
            starts = shingles.bounds[:-1][has_any]
            sums = np.add.reduceat(shingles.hashes, starts) if len(starts) else _NONE
            contents.append(sums)
            files.append(_file(shard, rows[has_any]))
            if self._sketches_all:
                made.append(sketch_batch(_file(shard, rows), shingles))
        empty = np.empty((0, self.near.num_hashes), np.uint32)
        key = band_keys(np.concatenate([empty, *signed]), bands, self.near.rows).ravel()
        content, file = (np.repeat(np.concatenate(parts), bands) for parts in (contents, files))
        band = np.tile(np.arange(bands, dtype=np.uint8), len(key) // bands)
        table = pa.table({"key": key, "content": content, "file": file, "band": band})
        write_parts(self._work("keys", shard), table, buckets_of(key, self._num_buckets), self._num_buckets)
        if self._sketches_all:
            made = pa.Table.from_batches(made, SKETCHES).combine_chunks()
            write_sketches(self._work("sketch", shard), made.to_batches())

    def pair(self, bucket: int) -> None:
        """Pairs of files that meet in a bucket, and links between those with the same content."""
        table = read_part(self._all("keys"), bucket)
        key, content, file, band = (column(table, name) for name in table.column_names)
        pairs, links = meeting(key, content, file, band == 0)
        part = buckets_of(mix(pairs[0] * _SPREAD ^ pairs[1]), self._num_buckets)
        _write_pairs(self._work("links", bucket), links, np.zeros(links.shape[1], np.int64), 1)
        _write_pairs(self._work("pairs", bucket), pairs, part, self._num_buckets)
        met = different(np.concatenate([pairs, links], axis=1).ravel())
        rows = pa.table({"file": met, "is_compared": are_among(met, different(pairs.ravel()))})
        write_parts(self._work("met", bucket), rows, met >> _ROW_BITS, len(self._shards))

    def sketch(self, shard: int) -> None:
        """Names of a shard's files that meet others, and sketches of those that must be compared."""
        met = read_part(self._all("met"), shard)
        files, is_compared = column(met, "file"), met.column("is_compared").to_numpy()
        rows = different(files) & np.uint64(0xFFFFFFFF)
        names = [batch.select(NAMES) for batch in read_batches(self._shards[shard], NAMES)]
        table = pa.Table.from_batches(names, schema=NAMED).take(pa.array(rows))
        table = table.append_column("file", pa.array(_file(shard, rows)))
        write_parts(self._work("names", shard), table, np.zeros(len(rows), np.int64), 1)
        if not self._sketches_all:
            wanted = different(files[is_compared]) & np.uint64(0xFFFFFFFF)
            found = self._shingles(shard, wanted)
            made = (sketch_batch(_file(shard, rows), shingles) for rows, shingles in found)
            write_sketches(self._work("sketch", shard), made)

    def verify(self, bucket: int) -> None:
        """The pairs of a bucket that are as alike as they must be."""
        table = read_part(self._all("pairs"), bucket)
        pairs = distinct(np.stack([column(table, "first"), column(table, "second")]))
        files = different(pairs.ravel())
        places = np.searchsorted(files, pairs)
        shards = different(files >> _ROW_BITS).tolist()
        made = read_sketches([self._work("sketch", shard) for shard in shards], files)
        sizes, ends = np.array([(len(values), end) for values, end in made]).reshape(-1, 2).T
        places = places[:, may_reach(sizes[places], ends[places], self.near.threshold)]
        alike = files[places[:, jaccard(made, places) >= self.near.threshold]]
        _write_pairs(self._work("alike", bucket), alike, np.zeros(alike.shape[1], np.int64), 1)

    def cluster(self, _: int) -> None:
        """Which files go."""
        tables = [read_part(self._all(kind), 0) for kind in ("links", "alike")]
        edges = pa.concat_tables(tables)
        first, second = column(edges, "first"), column(edges, "second")
        files = different(np.concatenate([first, second]))
        roots = components(np.searchsorted(files, np.stack([first, second])), len(files))
        names = read_part([self._work("names", number) for number in range(len(self._shards))], 0)
        names = names.filter(pa.array(are_among(column(names, "file"), files)))
        file = column(names, "file")
        names = names.append_column("cluster", pa.array(roots[np.searchsorted(files, file)]))
        names = names.append_column("shard", pa.array(file >> _ROW_BITS))
        names = names.append_column("row", pa.array(file & np.uint64(0xFFFFFFFF)))
        ranked = best_first(names, "cluster")
        cluster = column(ranked, "cluster")
        goes = np.concatenate([[False], cluster[1:] == cluster[:-1]])[: len(cluster)]
        dropped = ranked.filter(pa.array(goes))
        write_drops(self._work("drops"), dropped, np.zeros(len(dropped), np.int64), len(self._shards))

    def write(self, number: int) -> Counts:
        """A shard without the files that go."""
        shard = self._shards[number]
        return write_kept(shard, number, self.output / shard.name, [self._work("drops")], ["near_duplicate"])


_NONE = np.empty(0, np.uint64)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def _file(shard: int, rows: np.ndarray) -> np.ndarray:
    """Numbers of files: the shard in the upper half, the row in the lower."""
    return rows.astype(np.uint64) | (np.uint64(shard) << _ROW_BITS)


def _write_pairs(path: Path, pairs: np.ndarray, part: np.ndarray, num_parts: int) -> None:
    write_parts(path, pa.table({"first": pairs[0], "second": pairs[1]}), part, num_parts)
