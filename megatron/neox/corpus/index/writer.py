"""An index of shards, written as PolyCoder's: see `index.py`."""

from __future__ import annotations

import heapq
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from megatron.neox.corpus.index.index import index_name
from megatron.neox.corpus.stages.folders import lock_folder
from megatron.neox.corpus.stages.shards import find_shards, read_batches
from megatron.neox.errors import InputError, OutputError
from megatron.neox.files import appearing

_COLUMNS = ("language", "repository", "path", "sha256")
_BUFFER_BYTES = 1 << 18
_MERGED_AT_ONCE = 200  # runs that are open together


def write_index(shards: Path, output: Path, *, overwrite: bool = False) -> int:
    """Write a line for each file of the shards, sorted; returns how many.

    The lines of one shard are held in memory; on the disk, beside `output`, twice those of all.

    Args:
        output: becomes a zip where its name ends in `.zip`.

    Raises:
        InputError: no finished folder of shards, or no file in them.
        OutputError: `output` exists, and `overwrite` is not asked for.
    """
    found = find_shards(shards)
    if os.path.lexists(output) and not overwrite:
        raise OutputError(f"{output} exists already; give another --output, or --overwrite to replace it")
    output.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(output) as folder:
        runs = [_run(sorted(_lines(shard)), folder) for shard in found]
        while len(runs) > _MERGED_AT_ONCE:
            with _merged(runs[:_MERGED_AT_ONCE]) as lines:
                runs = [*runs[_MERGED_AT_ONCE:], _run(lines, folder)]
        with appearing(output) as partial, _opened(partial, output) as file, _merged(runs) as lines:
            if num_lines := _write(lines, file):
                return num_lines
            raise InputError(
                f"{shards} holds no file, so that there is nothing to index; was all of it left out?"
            )


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """An empty folder beside `output`, gone afterwards; what a killed run left in it is cleared away.

    Raises:
        OutputError: another run is writing there.
    """
    folder = output.with_name(f".{output.name}.runs")
    folder.mkdir(exist_ok=True)
    with lock_folder(folder):
        for run in folder.iterdir():
            run.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _lines(shard: Path) -> Iterator[bytes]:
    for batch in read_batches(shard, _COLUMNS):
        columns = [batch.column(name).to_pylist() for name in _COLUMNS]
        for language, repository, path, digest in zip(*columns):
            yield f"{index_name(language, repository, path)}\t{digest}\n".encode()


def _run(lines: Iterable[bytes], folder: Path) -> Path:
    """Sorted lines in a file of their own."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    with open(descriptor, "wb", buffering=_BUFFER_BYTES) as file:
        file.writelines(lines)
    return Path(name)


@contextmanager
def _merged(runs: Iterable[Path]) -> Iterator[Iterator[bytes]]:
    """The lines of sorted files in order; the files are gone afterwards."""
    with ExitStack() as stack:
        files = [stack.enter_context(run.open("rb", buffering=_BUFFER_BYTES)) for run in runs]
        yield heapq.merge(*files)
    for run in runs:
        run.unlink()


@contextmanager
def _opened(partial: Path, output: Path) -> Iterator[IO[bytes]]:
    """The file to write to, inside a zip or not; equal lines give equal bytes."""
    if output.suffix.lower() != ".zip":
        with partial.open("wb", buffering=_BUFFER_BYTES) as file:
            yield file
        return
    member = zipfile.ZipInfo(f"{output.stem}.txt")  # of the year 1980, whenever it is
    member.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(partial, "w") as archive, archive.open(member, "w", force_zip64=True) as file:
        yield file


def _write(lines: Iterable[bytes], file: IO[bytes]) -> int:
    num_lines = 0
    for line in lines:
        file.write(line)
        num_lines += 1
    return num_lines
