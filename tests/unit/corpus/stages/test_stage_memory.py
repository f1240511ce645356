"""Stages that go shard by shard need as much memory for much as for little."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.shards import new_shard, shard_name
from tests.unit.corpus.deduplication.files import source

_RUN = """
import re, sys
from pathlib import Path
from megatron.neox.corpus.deduplication.exact import ExactDuplicates
from megatron.neox.corpus.filters.stage import filter_stage
from megatron.neox.corpus.filters.presets import preset
from megatron.neox.corpus.protection.protect import Protection, protect_stage
from megatron.neox.corpus.stages.running import run_stage
name, folder, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
run_stage({
    "filter": lambda: filter_stage(folder, output, preset("codeparrot")),
    "protect": lambda: protect_stage(folder, output, Protection(humaneval=True)),
    "deduplicate": lambda: ExactDuplicates(folder, output).stage(),
}[name]())
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def one_shard(folder: Path, num_megabytes: int) -> Path:
    """Files of 4 to 40 kB, and one of 1 MB, the largest that extraction takes, in every fifty."""
    chance = random.Random(2)
    lines = [f"value_{chance.randrange(10**9)} = compute({chance.random()})\n" for _ in range(40_000)]
    folder.mkdir()
    num_bytes = number = 0
    with new_shard(folder / shard_name(0)) as shard:
        while num_bytes < num_megabytes * 1_000_000:
            first, number = chance.randrange(10_000), number + 1
            length = 24_000 if number % 50 == 0 else chance.randrange(100, 1_000)
            file = source("".join(lines[first : first + length]), f"{number}.py")
            num_bytes += file.size
            shard.write(file)
    return folder


def peak_bytes(stage: str, shards: Path, output: Path) -> int:
    """The largest resident size of a process of its own; what os.wait4 tells may be its parent's."""
    command = [sys.executable, "-c", _RUN, stage, str(shards), str(output)]
    return int(subprocess.check_output(command, text=True)) << 10


# At 50 MB a process has filled all that it keeps, some twelve row groups of 4 MiB; below that it has not yet grown.
@pytest.mark.long
@pytest.mark.parametrize(("stage", "num_megabytes"), [("filter", 100), ("deduplicate", 100), ("protect", 50)])
def test_five_times_the_input_takes_no_more_memory(tmp_path: Path, stage: str, num_megabytes: int) -> None:
    small, big = (
        peak_bytes(stage, one_shard(tmp_path / f"{size}", size), tmp_path / f"{size}-out")
        for size in (num_megabytes, 5 * num_megabytes)
    )
    assert big < 1.1 * small, (small, big)
