"""The baselines are what the commands write."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from megatron.neox.evaluation.compressors import gzip_size, xz_size

SOURCES = sorted(Path(pytest.__file__).parent.parent.joinpath("_pytest").glob("*.py"))[:12]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_small_dictionary_compresses_as_preset_9_does(path: Path) -> None:
    data = path.read_bytes()
    assert xz_size(data) == len(lzma.compress(data, check=lzma.CHECK_CRC64, preset=9))


def test_sizes_of_an_empty_and_a_one_byte_file() -> None:
    assert [gzip_size(b""), gzip_size(b"a")] == [20, 21]
    assert [xz_size(b""), xz_size(b"a")] == [32, 60]


@pytest.mark.parametrize(("command", "size"), [("gzip", gzip_size), ("xz", xz_size)])
def test_the_command_agrees(command: str, size: object) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    options = ["-9", "-n", "-c"] if command == "gzip" else ["-9", "-c"]
    data = SOURCES[-1].read_bytes()
    theirs = len(subprocess.run([command, *options], input=data, capture_output=True, check=True).stdout)
    assert callable(size)
    assert size(data) == pytest.approx(theirs, rel=0.003)
    assert gzip.decompress(gzip.compress(data, 9)) == data
