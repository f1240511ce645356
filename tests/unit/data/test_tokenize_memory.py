"""Tokenizing needs as much memory for much as for little."""

from __future__ import annotations

import random
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.shards import new_shard, shard_name
from tests.unit.corpus.deduplication.files import source

LIBRARY = Path(sysconfig.get_path("stdlib"))

_RUN = """
import re, sys
from pathlib import Path
from megatron.neox.config import TokenizerConfig
from megatron.neox.data.tokenize import TokenizeSettings, tokenize
folder, vocabulary = sys.argv[1:]
tokenizer = TokenizerConfig(vocab_file=vocabulary + "/code-vocab.json", merge_file=vocabulary + "/code-merges.txt")
tokenize(TokenizeSettings(inputs=[Path(folder)], output_prefix=folder + "-ids", tokenizer=tokenizer))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def texts(num_megabytes: int) -> list[str]:
    """Python's own sources, half of them with names of their own; from 50 MB on large files too, one behind another."""
    chance, taken, num_bytes = random.Random(2), [], 0
    library = [path.read_text("utf-8", "replace") for path in sorted(LIBRARY.glob("[a-z]*.py"))]
    while num_bytes < num_megabytes * 1_000_000:
        is_large = num_bytes > 50_000_000 and len(taken) % 500 < 5
        text = "".join(chance.choices(library, k=chance.choice([40, 100]) if is_large else 1))
        if chance.random() < 0.5:
            text = text.replace("self.", f"self.{chance.randbytes(2).hex()}_")
        taken.append(text)
        num_bytes += len(text)
    return taken


def write(folder: Path, kind: str, num_megabytes: int) -> None:
    folder.mkdir()
    if kind == "folder":
        for number, text in enumerate(texts(num_megabytes)):
            (folder / f"{number:06d}.py").write_text(text, encoding="utf-8")
        return
    with new_shard(folder / shard_name(0)) as shard:
        for number, text in enumerate(texts(num_megabytes)):
            shard.write(source(text, f"{number}.py"))
    (folder / "summary.json").write_text("{}")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_five_times_the_input_takes_no_more_memory(tmp_path: Path, polycoder: Path, kind: str) -> None:
    peaks: list[int] = []
    for size in (50, 250):
        folder = tmp_path / f"{size}"
        write(folder, kind, size)
        told = subprocess.check_output([sys.executable, "-c", _RUN, str(folder), str(polycoder)], text=True)
        peaks.append(int(told) << 10)
    small, big = peaks
    assert big < 1.1 * small, (small, big)
