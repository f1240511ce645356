"""Near copies left out of shards: of files that are nearly the same one stays.

MinHash with locality-sensitive hashing proposes pairs, Jaccard's index of their shingles settles them, and whatever
is linked by settled pairs is a cluster, of which one file stays: the one with the most stars, then the first by
repository and path. A chain is one cluster, though its ends may differ by more than any pair does.

Phases: `keys` gives each file its keys; `pairs` finds, in one bucket of keys of all shards, the files that meet;
`sketch` reads those files again and keeps the hashes of their shingles; `verify` compares; `cluster` links, in one
task; `write` drops.

Of the disk a file takes 25 bytes a key until the stage is finished (32 keys: 800), and one that meets another up to
16 KiB more. In memory a task holds the keys of one shard, one bucket, or one row group; `cluster` 16 bytes a settled
pair, and for a file in such a pair 40 and the length of its repository, path and language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from megatron.neox.corpus.deduplication.clusters import components, distinct, neighbours
from megatron.neox.corpus.deduplication.minhash import band_keys, signatures
from megatron.neox.corpus.deduplication.parts import buckets_of, column, num_buckets, read_part, write_parts
from megatron.neox.corpus.deduplication.rewrite import (
    NAMES,
    best_first,
    num_rows,
    write_drops,
    write_kept,
)
from megatron.neox.corpus.deduplication.shingles import Shingles, Shingling, mix, shingle, slices
from megatron.neox.corpus.deduplication.sketches import Sketch, jaccard, may_reach, sketches
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.rewriting import describe_input
from megatron.neox.corpus.stages.shards import find_shards, read_batches
from megatron.neox.corpus.stages.stage import Phase, Stage, work_folder
from megatron.neox.files import appearing

_BATCH_ROWS = 256
_ROW_BITS = np.uint64(32)


@dataclass(frozen=True)
class NearSettings:
    """What makes two files nearly the same.

    Attributes:
        threshold: Jaccard's index from which on they are.
        num_hashes: bins of a signature.
        bands, rows: keys of a file, and bins in each.
    """

    shingling: Shingling
    threshold: float
    num_hashes: int
    bands: int
    rows: int

    def __post_init__(self) -> None:
        assert self.bands * self.rows <= self.num_hashes
        assert 0 < self.threshold <= 1


PRESETS: Mapping[str, NearSettings] = {
    "bytes": NearSettings(Shingling("bytes", 16, 16), 0.8, 256, 32, 8),
    # transformers-research-projects: codeparrot/scripts/minhash_deduplication.py; datasketch's bands for 0.85.
    "codeparrot": NearSettings(Shingling("words", 1, 10), 0.85, 256, 13, 19),
    # bigcode-dataset: near_deduplication/minhash_deduplication.py.
    "bigcode": NearSettings(Shingling("words", 5, 5), 0.7, 256, 25, 10),
}


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
        num_shards = len(self._shards)
        phases = [
            Phase("keys", num_shards, self.make_keys),
            Phase("pairs", self._num_buckets, self.pair),
            Phase("sketch", num_shards, self.sketch),
            Phase("verify", self._num_buckets, self.verify),
            Phase("cluster", 1, self.cluster),
            Phase("write", num_shards, self.write),
        ]
        settings = {"input": describe_input(self.input), **asdict(self.near)}
        return Stage("deduplicate_near", self.output, settings, phases, inputs=[self.input])

    @cached_property
    def _shards(self) -> list[Path]:
        return find_shards(self.input)

    @cached_property
    def _num_buckets(self) -> int:
        return num_buckets(num_rows(self._shards) * self.near.bands)

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
        for batch in read_batches(self._shards[shard], ["content"], num_rows=_BATCH_ROWS):
            rows = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            if wanted is not None:
                rows = rows[np.isin(rows, wanted)]
                batch = batch.take(pa.array(rows - (start - batch.num_rows)))
            texts = batch.column(0).cast(pa.binary()).to_pylist()
            for part in slices(texts):
                yield rows[part], shingle(texts[part], self.near.shingling)

    def make_keys(self, shard: int) -> None:
        """Keys of a shard's files; `content` is the same for files with the same shingles."""
        bands = self.near.bands
        keys, contents, files = [_NONE], [_NONE], [_NONE]
        for rows, shingles in self._shingles(shard):
            has_any = np.diff(shingles.bounds) > 0
            signature = signatures(shingles, self.near.num_hashes)[has_any]
            keys.append(band_keys(signature, bands, self.near.rows).ravel())
            starts = shingles.bounds[:-1][has_any]
            sums = np.add.reduceat(shingles.hashes, starts) if len(starts) else _NONE
            contents.append(np.repeat(sums, bands))
            files.append(np.repeat(_file(shard, rows[has_any]), bands))
        key, content, file = map(np.concatenate, (keys, contents, files))
        band = np.tile(np.arange(bands, dtype=np.uint8), len(key) // bands)
        table = pa.table({"key": key, "content": content, "file": file, "band": band})
        write_parts(self._work("keys", shard), table, buckets_of(key, self._num_buckets), self._num_buckets)

    def pair(self, bucket: int) -> None:
        """Pairs of files that meet in a bucket, and links between those with the same content."""
        table = read_part(self._all("keys"), bucket)
        key, content, file = (column(table, name) for name in ("key", "content", "file"))
        # In another order under every key, so that each file has other neighbours there.
        order = np.lexsort((file, mix(content ^ key), key))
        key, content, file, band = key[order], content[order], file[order], column(table, "band")[order]
        is_new = np.ones(len(key), bool)
        is_new[1:] = (key[1:] != key[:-1]) | (content[1:] != content[:-1])
        first = file[is_new][np.cumsum(is_new) - 1]
        linked = ~is_new & (band == 0)  # under its other keys a file would be linked in the same way
        links = np.stack([first[linked], file[linked]])
        pairs = neighbours(key[is_new], file[is_new])
        part = buckets_of(mix(pairs[0] * _SPREAD ^ pairs[1]), self._num_buckets)
        _write_pairs(self._work("links", bucket), links, np.zeros(links.shape[1], np.int64), 1)
        _write_pairs(self._work("pairs", bucket), pairs, part, self._num_buckets)
        compared, met = np.unique(pairs), np.unique(np.concatenate([pairs, links], axis=1))
        rows = pa.table({"file": met, "is_compared": np.isin(met, compared)})
        write_parts(self._work("met", bucket), rows, met >> _ROW_BITS, len(self._shards))

    def sketch(self, shard: int) -> None:
        """Names of a shard's files that meet others, and sketches of those that must be compared."""
        met = read_part(self._all("met"), shard)
        files, is_compared = column(met, "file"), met.column("is_compared").to_numpy()
        rows = np.unique(files) & np.uint64(0xFFFFFFFF)
        names = [batch.select(NAMES) for batch in read_batches(self._shards[shard], NAMES)]
        table = pa.Table.from_batches(names, schema=_NAMED).take(pa.array(rows))
        table = table.append_column("file", pa.array(_file(shard, rows)))
        write_parts(self._work("names", shard), table, np.zeros(len(rows), np.int64), 1)
        wanted = np.unique(files[is_compared]) & np.uint64(0xFFFFFFFF)
        with (
            appearing(self._work("sketch", shard)) as partial,
            pa.OSFile(str(partial), "wb") as file,
            pa.ipc.new_file(file, _SKETCHES) as writer,
        ):
            for found, shingles in self._shingles(shard, wanted):
                made = list(sketches(shingles))
                arrays = [
                    pa.array(_file(shard, found)),
                    pa.array([values for values, _ in made], pa.list_(pa.uint32())),
                    pa.array([end for _, end in made], pa.uint32()),
                ]
                writer.write_batch(pa.record_batch(arrays, schema=_SKETCHES))

    def verify(self, bucket: int) -> None:
        """The pairs of a bucket that are as alike as they must be."""
        table = read_part(self._all("pairs"), bucket)
        pairs = distinct(np.stack([column(table, "first"), column(table, "second")]))
        files, places = np.unique(pairs, return_inverse=True)
        known = self._sketches_of(files)
        made = [known[file] for file in files.tolist()]
        sizes, ends = np.array([(len(values), end) for values, end in made]).reshape(-1, 2).T
        places = places.reshape(2, -1)
        places = places[:, may_reach(sizes[places], ends[places], self.near.threshold)]
        index = [jaccard(made[one], made[other]) for one, other in places.T.tolist()]
        alike = files[places[:, np.array(index) >= self.near.threshold]]
        _write_pairs(self._work("alike", bucket), alike, np.zeros(alike.shape[1], np.int64), 1)

    def _sketches_of(self, files: np.ndarray) -> dict[int, Sketch]:
        """Sketches by file; they lie on the disk, mapped into memory."""
        found: dict[int, Sketch] = {}
        for shard in np.unique(files >> _ROW_BITS):
            reader = pa.ipc.open_file(pa.memory_map(str(self._work("sketch", int(shard)))))
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                names, lists, ends = (batch.column(place) for place in range(3))
                values, bounds = lists.values.to_numpy(), lists.offsets.to_numpy()
                names, ends = names.to_numpy(), ends.to_numpy()
                for place in np.flatnonzero(np.isin(names, files)):
                    inside = values[bounds[place] : bounds[place + 1]]
                    found[int(names[place])] = (inside, int(ends[place]))
        return found

    def cluster(self, _: int) -> None:
        """Which files go."""
        tables = [read_part(self._all(kind), 0) for kind in ("links", "alike")]
        edges = pa.concat_tables(tables)
        first, second = column(edges, "first"), column(edges, "second")
        files, places = np.unique(np.stack([first, second]), return_inverse=True)
        roots = components(places.reshape(2, -1), len(files))
        names = read_part([self._work("names", number) for number in range(len(self._shards))], 0)
        names = names.filter(pa.array(np.isin(column(names, "file"), files)))
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
_NAMED = pa.schema(
    {"repository": pa.string(), "path": pa.string(), "language": pa.string(), "stars": pa.int32()}
)
_SKETCHES = pa.schema({"file": pa.uint64(), "least": pa.list_(pa.uint32()), "end": pa.uint32()})


def _file(shard: int, rows: np.ndarray) -> np.ndarray:
    """Numbers of files: the shard in the upper half, the row in the lower."""
    return rows.astype(np.uint64) | (np.uint64(shard) << _ROW_BITS)


def _write_pairs(path: Path, pairs: np.ndarray, part: np.ndarray, num_parts: int) -> None:
    write_parts(path, pa.table({"first": pairs[0], "second": pairs[1]}), part, num_parts)
