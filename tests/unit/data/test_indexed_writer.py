from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pytest

from megatron.neox.data.indexed import IndexedDataset
from megatron.neox.data.indexed_writer import IndexedDatasetWriter
from megatron.neox.errors import DatasetError, OutputError
from tests.unit.data.test_indexed import DOCUMENTS, core, write, write_with_core


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_bytes_equal_megatron_cores(tmp_path: Path, dtype: type) -> None:
    ours, theirs = write(tmp_path / "ours", dtype), write_with_core(tmp_path / "theirs", dtype)
    for ending in (".bin", ".idx"):
        assert Path(f"{ours}{ending}").read_bytes() == Path(f"{theirs}{ending}").read_bytes()


@pytest.mark.parametrize(
    ("dtype", "document"), [(np.uint16, [65536]), (np.uint16, [-1]), (np.int32, [1 << 31])]
)
def test_ids_that_do_not_fit_are_refused(tmp_path: Path, dtype: type, document: list[int]) -> None:
    with pytest.raises(DatasetError, match=rf"ids from .* do not fit {np.dtype(dtype)}"):
        write(tmp_path / "d", dtype, [[1], document])
    assert os.listdir(tmp_path) == []
    write(tmp_path / "d", np.uint16, [[65535]])


def test_documents_of_another_total_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DatasetError, match="do not add up to 3 tokens"),
        IndexedDatasetWriter(tmp_path / "d", np.uint16) as writer,
    ):
        writer.add_many(np.arange(3), [1, 1])


def test_parts_merge_with_their_documents(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b", documents=[[9], [8, 8]])
    with IndexedDatasetWriter(tmp_path / "all", np.uint16) as writer:
        for part in (first, second):
            writer.merge(part)
    whole = write(tmp_path / "whole", documents=[*DOCUMENTS, [9], [8, 8]])
    for ending in (".bin", ".idx"):
        assert Path(f"{tmp_path / 'all'}{ending}").read_bytes() == Path(f"{whole}{ending}").read_bytes()
    with (
        pytest.raises(DatasetError, match=r"a has ids of uint16, .*other of int32"),
        IndexedDatasetWriter(tmp_path / "other", np.int32) as writer,
    ):
        writer.merge(first)


def test_merging_keeps_documents_of_several_sequences(tmp_path: Path) -> None:
    builder = core.IndexedDatasetBuilder(f"{tmp_path / 'a'}.bin", dtype=np.uint16)
    builder.add_document(np.array([1, 2, 3]), [1, 2])
    builder.add_document(np.array([4]), [1])
    builder.finalize(f"{tmp_path / 'a'}.idx")
    with IndexedDatasetWriter(tmp_path / "b", np.uint16) as writer:
        writer.merge(tmp_path / "a")
        writer.merge(tmp_path / "a")
    merged = IndexedDataset(tmp_path / "b")
    assert merged.sizes.tolist() == [1, 2, 1, 1, 2, 1]
    assert merged.document_index.tolist() == [0, 2, 3, 5, 6]
    assert np.concatenate(list(merged)).tolist() == [1, 2, 3, 4, 1, 2, 3, 4]


def test_metadata_lies_beside(tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "d", np.uint16, metadata={"append_eod": True}) as writer:
        writer.add([1, 2])
        writer.metadata["seed"] = 3
    assert json.loads((tmp_path / "d.json").read_text()) == {
        "num_documents": 1, "num_tokens": 2, "dtype": "uint16", "append_eod": True, "seed": 3,
    }  # fmt: skip


def test_nothing_appears_before_the_end_or_after_an_error(tmp_path: Path) -> None:
    def interrupted() -> None:
        with IndexedDatasetWriter(tmp_path / "d", np.uint16) as writer:
            writer.add([1])
            assert os.listdir(tmp_path) == ["d.bin.partial"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_an_existing_dataset_is_kept_unless_told(tmp_path: Path) -> None:
    write(tmp_path / "d")
    before = (tmp_path / "d.bin").read_bytes()
    with pytest.raises(OutputError, match=r"d\.bin and .*d\.idx exist already.*--overwrite"):
        write(tmp_path / "d", documents=[[1]])
    assert (tmp_path / "d.bin").read_bytes() == before
    with IndexedDatasetWriter(tmp_path / "d", np.uint16, overwrite=True) as writer:
        writer.add([1])
    assert IndexedDataset(tmp_path / "d")[0].tolist() == [1]
    assert sorted(os.listdir(tmp_path)) == ["d.bin", "d.idx", "d.json"]


def test_two_runs_do_not_write_one_dataset(tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "d", np.uint16) as writer:
        writer.add([1])
        with pytest.raises(OutputError, match="another run is writing"):
            write(tmp_path / "d")
    assert IndexedDataset(tmp_path / "d")[0].tolist() == [1]


def test_what_a_killed_run_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "d.bin.partial").write_bytes(b"left over")
    with open(tmp_path / "d.bin.partial", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(OutputError, match="another run"):
            write(tmp_path / "d")
    write(tmp_path / "d")
    assert (tmp_path / "d.bin").stat().st_size == 612


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    # Writing to /dev/full fails as writing to a full disk does.
    (tmp_path / "d.bin.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*d\.bin'"):
        write(tmp_path / "d", documents=[list(range(60_000))])
    assert os.listdir(tmp_path) == []
    (tmp_path / "d.bin.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*d\.bin'"):
        write(tmp_path / "d", documents=[[1]])  # small enough to fail only at the end
    assert os.listdir(tmp_path) == []


def test_a_prefix_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*another --output-prefix"):
        write(tmp_path / "file" / "d")
    write(tmp_path / "new" / "folders" / "d")
