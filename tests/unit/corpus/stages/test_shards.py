from __future__ import annotations

import errno
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from megatron.neox.corpus.stages.rewriting import rewrite_shard
from megatron.neox.corpus.stages.shards import _Texts, new_shard, read_shard, shard_name
from tests.unit.corpus.deduplication.files import source

# What a full disk does to a writer in the middle of a shard: a limit on the size of files.
FULL = """
import random, sys
from pathlib import Path
from megatron.neox.corpus.stages.shards import SourceFile, new_shard
try:
    with new_shard(Path(sys.argv[1])) as shard:
        for number in range(60):
            text = random.Random(number).randbytes(500_000).hex()
            shard.write(SourceFile("o/p", "C", f"{number}", "0" * 64, 1, None, [], None, False, text))
except OSError as error:
    print(error.errno)
"""


def _limit() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, 10 << 20))


def test_a_full_disk_is_told_as_such_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / shard_name(0))]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_limit, check=False)
    assert (done.stdout, done.stderr) == (f"{errno.EFBIG}\n", "")
    assert not list(tmp_path.iterdir())


PANDAS = """
import sys
from pathlib import Path
import pyarrow as pa
from megatron.neox.corpus.stages.shards import SourceFile, new_shard
with new_shard(Path(sys.argv[1])) as shard:
    shard.write(SourceFile("o/p", "C", "a.c", "0" * 64, 1, None, ["MIT"], None, False, "int a;"))
assert "pandas" not in sys.modules
frame = pa.table({"size": [1, 2]}).to_pandas()  # who needs it has it
assert pa.Table.from_pandas(frame)["size"].to_pylist() == [1, 2]
"""


def test_writing_a_shard_does_not_import_pandas(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PANDAS, str(tmp_path / shard_name(0))]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""


def test_texts_become_the_column_that_pyarrow_makes() -> None:
    for texts in ([], [""], ["a", "", "é日本👩" * 1000, "x\0\n"] * 50):
        column = _Texts()
        assert [column.append(text) for text in texts] == [len(text.encode()) for text in texts]
        assert column.to_arrow().equals(pa.array(texts, pa.string()))
        column.to_arrow().validate(full=True)


def test_a_row_group_is_written_without_a_second_one_beside_it(tmp_path: Path) -> None:
    files = [source(random.Random(number).randbytes(3000).hex(), f"{number}") for number in range(3000)]
    with new_shard(tmp_path / "a.parquet") as shard:
        for file in files:
            shard.write(file)
    whole, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        rewrite_shard(tmp_path / "a.parquet", tmp_path / "b.parquet", lambda batch: batch)
    finally:
        pa.set_memory_pool(whole)
    assert list(read_shard(tmp_path / "b.parquet")) == files
    assert 1 << 22 < (pool.max_memory() or 0) < 3 << 21  # a group is 4 MiB
