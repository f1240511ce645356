"""The stage that takes one side of a corpus that is divided into train and valid; a repository is on one side."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from megatron.neox.corpus.heldout import heldout_groups
from megatron.neox.corpus.importing.import_dataset import NO_NAME
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.rewriting import describe_input, drop_rows
from megatron.neox.corpus.stages.shards import find_shards, read_batches
from megatron.neox.corpus.stages.stage import Phase, Stage
from megatron.neox.errors import InputError

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)

Side = Literal["train", "valid"]


@dataclass(frozen=True)
class SplitShards:
    """Shards with the files of one side."""

    shards: tuple[Path, ...]
    output: Path
    side: Side
    share: float
    seed: int

    def run(self, number: int) -> Counts:
        """Take the side's files of a shard."""
        source = self.shards[number]
        return drop_rows(source, self.output / source.name, self._reasons)

    def _reasons(self, batch: pyarrow.RecordBatch) -> Iterator[str | None]:
        valid = _valid_repositories(self.shards, self.share, self.seed)
        for repository, digest in zip(*(batch.column(n).to_pylist() for n in ("repository", "sha256"))):
            is_valid = self._is_drawn(digest) if repository in ("", NO_NAME) else repository in valid
            yield None if is_valid == (self.side == "valid") else "other_side"

    def _is_drawn(self, digest: str) -> bool:
        hashed = sha256(f"{self.seed}\0{digest}".encode()).digest()
        return int.from_bytes(hashed[:8], "big") < self.share * 2**64


def split_stage(folder: Path, output: Path, side: Side, *, share: float, seed: int) -> Stage:
    """The stage that takes one side of the shards in `folder`.

    Repositories are drawn by the hashes of their names under a seed until valid has its share of the bytes; of files
    whose repository is not known each is drawn by its own hash.

    Args:
        share: of the bytes, about, that go to valid; 0 sends all to train.

    Raises:
        InputError: the folder holds no finished shards, or one repository alone.
    """
    shards = tuple(find_shards(folder))
    _valid_repositories(shards, share, seed)
    task = SplitShards(shards, output, side, share, seed)
    settings = {"input": describe_input(folder), "side": side, "valid_share": share, "seed": seed}
    return Stage(f"split {side}", output, settings, [Phase("split", len(shards), task.run)], inputs=[folder])


@lru_cache(maxsize=1)
def _valid_repositories(shards: tuple[Path, ...], share: float, seed: int) -> frozenset[str]:
    sizes: Counter[bytes] = Counter()
    unknown = 0
    for shard in shards:
        for batch in read_batches(shard, ["repository", "size"]):
            for repository, size in zip(*(column.to_pylist() for column in batch.columns)):
                if repository in ("", NO_NAME):
                    unknown += 1
                else:
                    sizes[repository.encode()] += size
    if unknown:
        log.info("%s files of no known repository are divided file by file", f"{unknown:,}")
    if not sizes or share == 0:
        return frozenset()
    if len(sizes) == 1:
        raise InputError(
            f"{shards[0].parent} holds one repository, which cannot be divided; --valid-share 0 keeps it in train"
        )
    return frozenset(name.decode() for name in heldout_groups(sizes, share=share, seed=seed))
