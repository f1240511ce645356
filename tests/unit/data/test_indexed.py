from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

from megatron.neox.data.indexed import IndexedDataset, dtype_for
from megatron.neox.data.indexed_writer import IndexedDatasetWriter
from megatron.neox.errors import DatasetError

with warnings.catch_warnings():  # it uses what torch 2.13 deprecates
    warnings.simplefilter("ignore")
    from megatron.core.datasets import indexed_dataset as core

DOCUMENTS = [[5, 0, 499], [7], [], list(range(300)), [1, 2]]


def write(prefix: Path, dtype: type = np.uint16, documents: list[list[int]] = DOCUMENTS) -> Path:
    with IndexedDatasetWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add(document)
    return prefix


def write_with_core(prefix: Path, dtype: type) -> Path:
    builder = core.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in DOCUMENTS:
        builder.add_document(np.array(document, np.int64), [len(document)])
    builder.finalize(f"{prefix}.idx")
    return prefix


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_each_side_reads_the_others_files(tmp_path: Path, dtype: type) -> None:
    theirs = core.IndexedDataset(str(write(tmp_path / "ours", dtype)))
    assert [document.tolist() for document in theirs] == DOCUMENTS
    assert theirs.document_indices.tolist() == [0, 1, 2, 3, 4, 5]
    del theirs  # it warns where its maps are still open at exit
    ours = IndexedDataset(write_with_core(tmp_path / "theirs", dtype))
    assert [document.tolist() for document in ours] == DOCUMENTS
    assert ours.document_index.tolist() == [0, 1, 2, 3, 4, 5]
    assert ours.dtype == np.dtype(dtype)


def test_what_a_reader_tells(tmp_path: Path) -> None:
    dataset = IndexedDataset(write(tmp_path / "d"))
    assert len(dataset) == 5
    assert dataset.sizes.tolist() == [3, 1, 0, 300, 2]
    assert dataset.num_tokens == 306
    assert dataset.read(3, 10, 3).tolist() == [10, 11, 12]
    assert dataset.read(3, 298).tolist() == [298, 299]
    assert dataset.read(3, 300).tolist() == []
    assert dataset[2].tolist() == []
    assert not dataset[0].flags.writeable
    for offset, length in ((0, 4), (-1, 2), (3, 1)):
        with pytest.raises(IndexError, match="are not in sequence 0 of 3 tokens"):
            dataset.read(0, offset, length)


def test_a_dataset_without_tokens_can_be_opened(tmp_path: Path) -> None:
    dataset = IndexedDataset(write(tmp_path / "d", documents=[[], []]))
    assert (len(dataset), dataset.num_tokens, dataset[1].tolist()) == (2, 0, [])
    assert len(IndexedDataset(write(tmp_path / "none", documents=[]))) == 0


def test_types_follow_the_vocabulary() -> None:
    assert [dtype_for(size).name for size in (256, 65499, 65500, 100_000)] == [
        "uint16", "uint16", "int32", "int32",
    ]  # fmt: skip


def break_index(path: Path, change: str) -> None:
    data = bytearray(path.read_bytes())
    if change == "magic":
        data[:6] = b"TNTIDX"
    elif change == "version":
        data[9] = 2
    elif change == "code":
        data[17] = 6
    elif change == "pointer":
        start = 34 + 4 * len(DOCUMENTS)
        data[start : start + 8] = struct.pack("<q", 1 << 40)
    elif change == "empty":
        data = bytearray()
    elif change == "head":
        data = data[:20]
    else:
        data = data[:-1]
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("magic", r"begins with b'TNTIDX.*tools/preprocess_data\.py"),
        ("version", "has version 2, only 1 is known"),
        ("code", "ids of type code 6"),
        ("tail", "d.idx is cut short: it has 141 bytes, 142 are needed for 5 sequences"),
        ("head", "d.idx is cut short: it has 20 bytes, its header alone 34"),
        ("empty", "d.idx is cut short: it has 0 bytes"),
    ],
)
def test_a_damaged_index_is_named_with_sizes(tmp_path: Path, change: str, message: str) -> None:
    write(tmp_path / "d")
    break_index(tmp_path / "d.idx", change)
    with pytest.raises(DatasetError, match=message):
        IndexedDataset(tmp_path / "d")


def test_a_pointer_out_of_the_file_is_found_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "d")
    break_index(tmp_path / "d.idx", "pointer")
    dataset = IndexedDataset(tmp_path / "d")
    assert dataset[1].tolist() == [7]
    with pytest.raises(DatasetError, match=r"d\.idx is damaged: sequence 0 would lie at bytes 1099511627776"):
        dataset.read(0)


def test_a_short_or_missing_bin_is_named_with_sizes(tmp_path: Path) -> None:
    write(tmp_path / "d")
    (tmp_path / "d.bin").write_bytes((tmp_path / "d.bin").read_bytes()[:-2])
    with pytest.raises(DatasetError, match=r"d\.bin is too short: it has 610 bytes, .*d\.idx speaks of 612"):
        IndexedDataset(tmp_path / "d")
    (tmp_path / "d.bin").unlink()
    with pytest.raises(DatasetError, match=r"cannot read .*d\.bin: No such file"):
        IndexedDataset(tmp_path / "d")
    with pytest.raises(DatasetError, match=r"cannot read .*d\.bin\.idx.*without \.bin or \.idx"):
        IndexedDataset(tmp_path / "d.bin")


def test_a_longer_bin_is_read_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "d")
    with open(tmp_path / "d.bin", "ab") as file:
        file.write(b"\0\0")
    assert IndexedDataset(tmp_path / "d").num_tokens == 306
    assert "has 2 bytes more" in caplog.text
