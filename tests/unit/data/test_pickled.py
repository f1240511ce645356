"""The dataset of pickled samples, and what a folder must not hold."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron.neox.data.pickled import PickledTrainerDataset
from megatron.neox.errors import DatasetError


def write(folder: Path, dumps: dict[str, Any], **changed: Any) -> Path:
    """A folder as the original writes it."""
    folder.mkdir()
    for name, rows in dumps.items():
        (folder / name).write_bytes(rows if isinstance(rows, bytes) else pickle.dumps(rows))
    counts = {
        name: {"num_samples": len(rows), "num_tokens": len(rows) * len(rows[0])}
        for name, rows in dumps.items()
        if not isinstance(rows, bytes)
    }
    (folder / "dump-meta_data.json").write_text(json.dumps({**counts, **changed}))
    return folder


def test_dumps_are_read_in_the_order_of_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dumps = {
        f"dump-{number}.pkl": [[number, 70000 + number, 2]] * (1 + number % 2) for number in (10, 2, 0, 1)
    }
    first = write(tmp_path / "a", dumps)
    second = write(tmp_path / "b", {"dump-0.pkl": [[7, 7, 7]]})
    dataset = PickledTrainerDataset([str(first), str(second)])
    assert [dataset[index]["input_ids"][0].item() for index in range(len(dataset))] == [0, 1, 1, 2, 10, 7]
    assert dataset[-1]["input_ids"].tolist() == [7, 7, 7]
    assert dataset[3]["input_ids"].tolist() == [2, 70002, 2]
    assert dataset[0]["input_ids"].shape == (3,)
    assert dataset[0]["input_ids"].dtype == torch.int64
    assert dataset[0]["labels"] is not None
    assert torch.equal(dataset[0]["labels"], dataset[0]["input_ids"])
    assert (dataset.total_samples, dataset.total_tokens) == (6, 18)
    with pytest.raises(IndexError):
        dataset[6]
    assert capsys.readouterr().out.splitlines() == [
        f"Checking folder: {first}",
        f"Found meta file: {first}/dump-meta_data.json",
        f"Checking folder: {second}",
        f"Found meta file: {second}/dump-meta_data.json",
        "Checked 2 folders and found 5 files with extension: pkl",
        "Total samples: 6",
        "Total tokens: 18",
        f"Loaded 1 vectors from {first}/dump-0.pkl",
        f"Loaded 2 vectors from {first}/dump-1.pkl",
        f"Loaded 1 vectors from {first}/dump-2.pkl",
        f"Loaded 1 vectors from {first}/dump-10.pkl",
        f"Loaded 1 vectors from {second}/dump-0.pkl",
    ]


def test_arrays_are_mapped_and_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {}, **{"dump-0.npy": {"num_samples": 2, "num_tokens": 6}})
    np.save(folder / "dump-0.npy", np.arange(6, dtype=np.uint16).reshape(2, 3))
    dataset = PickledTrainerDataset([folder])
    assert isinstance(dataset._parts[0], np.memmap)
    assert dataset[1]["labels"].tolist() == [3, 4, 5]


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Outside(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return "elsewhere" if obj == [3] else None


def outside() -> bytes:
    file = io.BytesIO()
    Outside(file).dump([[1], [3]])
    return file.getvalue()


COUNTS = {"num_samples": 2, "num_tokens": 4}
GOOD = pickle.dumps([[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([[1, 2], [3, 4.0]]), "holds samples of something else than ids"),
        (pickle.dumps([[1, 2], [3, True]]), "holds samples of something else than ids"),
        (pickle.dumps([[1, 2], (3, 4)]), "holds list, not a list of lists of ids"),
        (pickle.dumps({"a": 1}), "holds dict, not a list of lists of ids"),
        (pickle.dumps([[1, 2], [3]]), "holds samples of 1 and of 2 ids"),
        (pickle.dumps([[1, 2], [3, 2**31]]), r"holds ids beyond 2\*\*31"),
        (pickle.dumps([[1, 2]]), "holds 1 samples of 2 ids in all, but the metadata says 2 of 4"),
        (pickle.dumps(np.ones((2, 2), np.int64)), r"asks for numpy\._core\.\S+, which may run anything"),
        (outside(), "refers to objects outside"),
        (GOOD[:-3], "is damaged"),
        (b"", "is damaged"),
        (b"\x80\x04junk", "is damaged"),
    ],
    ids=str,
)
def test_a_pickle_holds_lists_of_ids_or_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    folder = write(tmp_path / "a", {"dump-0.pkl": content}, **{"dump-0.pkl": COUNTS})
    with pytest.raises(DatasetError, match=rf"a/dump-0\.pkl {message}"):
        PickledTrainerDataset([folder])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_would_run_is_not_run(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    content = pickle.dumps([[1, 2], Evil(made)], protocol=protocol)
    folder = write(tmp_path / "a", {"dump-0.pkl": content}, **{"dump-0.pkl": COUNTS})
    with pytest.raises(DatasetError, match=r"dump-0\.pkl asks for posix\.mkdir, which may run anything"):
        PickledTrainerDataset([folder])
    assert not made.exists()


def refused(folder: Path, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        PickledTrainerDataset([folder])


def test_a_folder_must_be_whole(tmp_path: Path) -> None:
    refused(tmp_path / "none", f"cannot read the folder {re.escape(str(tmp_path))}/none: No such file")
    folder = write(tmp_path / "a", {"dump-0.pkl": GOOD})
    refused(folder, r"dump-meta_data\.json has no entry for dump-0\.pkl")
    metadata = folder / "dump-meta_data.json"
    metadata.write_text(json.dumps({"dump-0.pkl": COUNTS, "dump-1.pkl": COUNTS}))
    refused(folder, r"tells of dump-1\.pkl, which .*a lacks")
    metadata.write_text(json.dumps({"dump-0.pkl": {"num_samples": 2}}))
    refused(folder, r"the entry of dump-0\.pkl has no num_samples and num_tokens")
    metadata.write_text("{")
    refused(folder, r"dump-meta_data\.json is damaged")
    metadata.write_text(json.dumps({"dump-0.pkl": COUNTS}))
    (folder / "other.json").write_text("{}")  # the original would take either of the two
    assert len(PickledTrainerDataset([folder])) == 2
    metadata.unlink()
    (folder / "third.json").touch()
    refused(folder, r"has 2 files \.json, none of them dump-meta_data\.json")


def test_samples_of_two_lengths_are_no_dataset(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"dump-0.pkl": [[1, 2]]})
    second = write(tmp_path / "b", {"dump-0.pkl": [[1, 2, 3]]})
    with pytest.raises(DatasetError, match=r"a/dump-0\.pkl of 2, .*b/dump-0\.pkl of 3 ids"):
        PickledTrainerDataset([first, second])
