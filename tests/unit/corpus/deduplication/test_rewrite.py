from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from megatron.neox.corpus.deduplication.rewrite import write_drops, write_kept
from megatron.neox.corpus.stages import shards
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.shards import read_shard, shard_name
from tests.unit.corpus.deduplication.files import source, write_shards


@pytest.mark.parametrize("share", [0, 0.05, 0.5, 1])
def test_rows_that_nothing_names_are_kept_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(shards, "_TEXTS_AT_ONCE", 7)
    chance = random.Random(8)
    files = [source(f"{n}\n" * n, f"{n}.c", language=chance.choice(["C", "C++"])) for n in range(100)]
    sources = write_shards(tmp_path / "in", [], files)
    fates = [chance.choice(["one", "other"]) if chance.random() < share else None for _ in files]
    gone = np.array([number for number, fate in enumerate(fates) if fate], np.int64)
    reason = np.array([fate == "other" for fate in fates if fate], np.int64)
    rows = pa.table({"row": gone.astype(np.uint32), "shard": np.ones(len(gone), np.uint32)})
    write_drops(tmp_path / "drops", rows, reason, 2)

    output, expected = tmp_path / "out.parquet", Counts()
    counts = write_kept(sources / shard_name(1), 1, output, [tmp_path / "drops"], ["one", "other"])
    for file, fate in zip(files, fates):
        if fate:
            expected.leave_out(fate, file.language, file.size)
        else:
            expected.keep(file.language, file.size)
    assert list(read_shard(output)) == [file for file, fate in zip(files, fates) if not fate]
    assert counts.to_json() == expected.to_json()
