from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from megatron.neox.data.indexed import IndexedDataset
from megatron.neox.data.indexed_writer import IndexedDatasetWriter
from megatron.neox.data.merge import find_prefixes, merge_datasets
from megatron.neox.errors import DatasetError, InputError, OutputError, VocabularyError


def dataset(prefix: Path, documents: list[list[int]], dtype: str = "<u2", **metadata: object) -> str:
    with IndexedDatasetWriter(prefix, np.dtype(dtype), metadata=metadata) as writer:
        for document in documents:
            writer.add(document)
    return str(prefix)


def test_documents_stay_as_they_were_and_what_made_them_is_told(tmp_path: Path) -> None:
    made = {"tokenizer": {"type": "T", "vocab_size": 300}, "append_eod": True, "eod": 0}
    (tmp_path / "parts").mkdir()
    dataset(tmp_path / "parts" / "b", [[4, 5, 0], [0]], **made, num_source_bytes=9)
    dataset(tmp_path / "parts" / "a", [[1, 2, 0], [3, 0]], **made, num_source_bytes=7)
    prefixes = find_prefixes([str(tmp_path / "parts")])
    assert [Path(prefix).name for prefix in prefixes] == ["a", "b"]
    merge_datasets(prefixes, str(tmp_path / "whole"))
    whole = IndexedDataset(tmp_path / "whole")
    assert [document.tolist() for document in whole] == [[1, 2, 0], [3, 0], [4, 5, 0], [0]]
    assert whole.document_index.tolist() == [0, 1, 2, 3, 4]
    recorded = json.loads((tmp_path / "whole.json").read_text())
    assert {key: recorded[key] for key in made} == made
    assert [part["num_source_bytes"] for part in recorded["merged"]] == [7, 9]
    with pytest.raises(OutputError, match="exist already"):
        merge_datasets(prefixes, str(tmp_path / "whole"))


def test_sequences_that_do_not_lie_end_to_end_are_read_one_by_one(tmp_path: Path) -> None:
    prefix = dataset(tmp_path / "a", [[1, 2], [3], [4]])
    index = bytearray((tmp_path / "a.idx").read_bytes())
    place = len(index) - 8 * 4 - 8 * 3  # the pointers, before four borders
    index[place : place + 24] = np.array([2, 6, 0], "<i8").tobytes()
    (tmp_path / "a.idx").write_bytes(index)
    merge_datasets([prefix], str(tmp_path / "b"))
    assert [ids.tolist() for ids in IndexedDataset(tmp_path / "b")] == [[2, 3], [4], [1]]


def test_a_merge_never_replaces_what_it_reads(tmp_path: Path) -> None:
    prefixes = [dataset(tmp_path / "a", [[1]]), dataset(tmp_path / "b", [[2]])]
    before = (tmp_path / "b.bin").read_bytes()
    with pytest.raises(OutputError, match="b is one of the datasets to merge"):
        merge_datasets(prefixes, str(tmp_path / "x" / ".." / "b"), overwrite=True)
    assert (tmp_path / "b.bin").read_bytes() == before


def test_what_cannot_be_one_dataset_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = dataset(tmp_path / "first", [[1]], tokenizer={"type": "T"}, eod=0)
    other = dataset(tmp_path / "other", [[1]], tokenizer={"type": "U"}, eod=0)
    wide = dataset(tmp_path / "wide", [[1]], "<i4", tokenizer={"type": "T"}, eod=0)
    for inputs, error, message in (
        ([first, other], VocabularyError, "made with another tokenizer"),
        ([first, wide], DatasetError, "cannot be merged"),
        ([first, str(tmp_path / "absent")], DatasetError, "absent"),
    ):
        with pytest.raises(error, match=message):
            merge_datasets(inputs, str(tmp_path / "out"))
        assert not list(tmp_path.glob("out*"))
        assert not caplog.messages  # nothing is taken on trust of what is not there
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"holds no \.idx"):
        find_prefixes([str(tmp_path / "bare")])


def test_a_dataset_is_named_once(tmp_path: Path) -> None:
    prefix = dataset(tmp_path / "a", [[1]])
    with pytest.raises(InputError, match=rf"{prefix} is named twice"):
        find_prefixes([f"{prefix}.bin", f"{prefix}.idx"])
