from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron.neox.config import DataConfig
from megatron.neox.data.batches import Batches
from megatron.neox.data.indexed_writer import IndexedDatasetWriter
from megatron.neox.data.samples import build_datasets
from megatron.neox.errors import ConfigError, DatasetError
from megatron.neox.plugins import transforms


def write(prefix: Path, documents: list[list[int]], *, overwrite: bool = False) -> str:
    with IndexedDatasetWriter(str(prefix), np.uint16, overwrite=overwrite) as writer:
        for document in documents:
            writer.add(document)
    return str(prefix)


def build(keys: dict[str, Any], *, seq_length: int = 4, rank: int = 0, **num_samples: int) -> dict[str, Any]:
    return build_datasets(
        DataConfig.model_validate(keys),
        seq_length=seq_length,
        seed=1234,
        num_samples=num_samples,
        rank=rank,
        barrier=lambda: None,
    )


def all_samples(dataset: Any) -> list[list[int]]:
    return [dataset[index].tolist() for index in range(len(dataset))]


def test_one_document_is_cut_into_samples_that_share_a_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    prefix = write(tmp_path / "code", [list(range(13))])
    train = build({"data_path": prefix, "split": "1"}, train=3)["train"]
    assert sorted(all_samples(train)) == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10, 11, 12]]
    assert train[0].dtype == np.int64
    assert caplog.messages == [
        f"train data: 1 documents, 13 tokens, 3 samples of 4 tokens, epochs: 1 ({prefix})"
    ]


def test_samples_run_across_documents(tmp_path: Path) -> None:
    prefix = write(tmp_path / "code", [[1, 2, 3], [], [4, 5], [6, 7, 8, 9]])
    train = build({"data_path": prefix, "split": "1"}, train=2)["train"]
    documents = {1: [1, 2, 3], 4: [4, 5], 6: [6, 7, 8, 9]}
    first, second = sorted(all_samples(train), key=lambda sample: train.order.shuffle_index.tolist().index(0))
    stream = first + second[1:] if first[-1] == second[0] else second + first[1:]
    rebuilt: list[int] = []
    while len(rebuilt) < 9:
        rebuilt += documents[stream[len(rebuilt)]]
    assert stream == rebuilt


def test_train_and_validation_share_no_document(tmp_path: Path) -> None:
    prefix = write(tmp_path / "code", [[number] * 10 for number in range(10)])
    built = build({"data_path": prefix, "split": "80,20,0"}, train=5, valid=3, test=1)
    assert {id for sample in all_samples(built["train"]) for id in sample} == set(range(8))
    assert {id for sample in all_samples(built["valid"]) for id in sample} == {8, 9}
    assert built["test"] is None


def test_the_cached_order_is_read_again_and_never_stale(tmp_path: Path) -> None:
    prefix = write(tmp_path / "code", [list(range(50))])
    keys = {"data_path": prefix, "split": "1"}
    first = all_samples(build(keys, train=12)["train"])
    files = sorted((tmp_path / "index_cache").iterdir())
    assert len(files) == 4
    again = build(keys, train=12)["train"]
    assert isinstance(again.order.shuffle_index, np.memmap)
    assert all_samples(again) == first
    assert sorted((tmp_path / "index_cache").iterdir()) == files
    write(tmp_path / "code", [list(range(21)), list(range(21, 50))], overwrite=True)
    changed = build(keys, train=12)["train"]
    assert len(list((tmp_path / "index_cache").iterdir())) == 8
    assert len(changed.order.document_index) == 2


def test_a_damaged_cache_is_built_anew(tmp_path: Path) -> None:
    prefix = write(tmp_path / "code", [list(range(50))])
    keys = {"data_path": prefix, "split": "1"}
    first = all_samples(build(keys, train=12)["train"])
    for path in (tmp_path / "index_cache").glob("*_sample_index.npy"):
        path.write_bytes(path.read_bytes()[:100])
    assert all_samples(build(keys, train=12)["train"]) == first


def test_a_rank_that_finds_no_index_builds_the_same(tmp_path: Path) -> None:
    prefix = write(tmp_path / "code", [list(range(50)), list(range(50, 99))])
    keys = {"data_path": prefix, "split": "1", "index_cache_path": str(tmp_path / "elsewhere")}
    alone = all_samples(build(keys, rank=3, train=24)["train"])
    assert not (tmp_path / "elsewhere").exists()
    assert all_samples(build(keys, rank=0, train=24)["train"]) == alone


def test_a_blend_gives_each_dataset_its_share(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [[1] * 400])
    second = write(tmp_path / "b", [[2] * 400])
    keys = {"train_data_paths": [first, second], "train_data_weights": [7, 3]}
    train = build(keys, train=100)["train"]
    ids = [train[index][0] for index in range(len(train))]
    assert (ids.count(1), ids.count(2)) == (70, 30)
    assert (ids[:10].count(1), ids[:10].count(2)) == (7, 3)
    assert ids[:40] == [build(keys, train=40)["train"][index][0] for index in range(40)]


def test_without_weights_a_blend_goes_by_tokens(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [[1] * 300])
    second = write(tmp_path / "b", [[2] * 100])
    train = build({"train_data_paths": [first, second]}, train=40)["train"]
    assert [train[index][0] for index in range(40)].count(1) == 30


def test_weights_by_documents_are_tempered(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [[1] * 10] * 16)
    second = write(tmp_path / "b", [[2] * 10])
    keys = {
        "train_data_paths": [first, second],
        "weight_by_num_documents": True,
        "weighted_sampler_alpha": 0.5,
    }
    train = build(keys, train=50)["train"]
    assert [train[index][0] for index in range(50)].count(1) == 40  # 16 ** 0.5 to 1


def test_separate_validation_paths(tmp_path: Path) -> None:
    keys = {
        "train_data_paths": [write(tmp_path / "a", [[1] * 30])],
        "valid_data_paths": [write(tmp_path / "b", [[2] * 30])],
    }
    built = build(keys, train=3, valid=2)
    assert set(built["train"][0]) == {1}
    assert set(built["valid"][0]) == {2}


def test_too_few_tokens_are_an_error_with_numbers(tmp_path: Path) -> None:
    prefix = write(tmp_path / "code", [[1] * 30, [2, 3]])
    with pytest.raises(DatasetError) as error:
        build({"data_path": prefix, "split": "50,50"}, train=1, valid=1)
    assert str(error.value) == (
        f"{prefix}: valid data has 2 tokens in 1 of 2 documents, but one sample needs seq_length + 1 = 5; "
        "give more data, a smaller seq_length, another split than '50,50', "
        "or eval_interval: 0 (no validation)"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "no training data: give data_path"),
        ({"data_path": "a", "train_data_paths": ["b"]}, "data_path and train_data_paths are both given"),
        ({"data_path": "a", "valid_data_paths": ["b"]}, "data_path and valid_data_paths are both given"),
    ],
)
def test_data_keys_that_are_missing_or_contradict(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(keys, train=1)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0]])
def test_weights_that_do_not_fit(tmp_path: Path, weights: list[float]) -> None:
    paths = [write(tmp_path / name, [[1] * 30]) for name in "ab"]
    with pytest.raises(ConfigError, match="train_data_weights"):
        build({"train_data_paths": paths, "train_data_weights": weights}, train=1)


def test_an_unwritable_cache_folder_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prefix = write(tmp_path / "code", [list(range(50))])
    (tmp_path / "file").write_text("in the way")
    keys = {"data_path": prefix, "split": "1", "index_cache_path": str(tmp_path / "file" / "cache")}
    with caplog.at_level(logging.WARNING):
        train = build(keys, train=3)["train"]
    assert len(train) == 12
    assert "index_cache_path names another folder" in caplog.text


def test_transforms_change_training_samples_reproducibly(tmp_path: Path) -> None:
    @transforms.register("shift_for_test")
    class Shift:
        """Add a constant and a random bit."""

        def __init__(self, *, by: int, seq_length: int) -> None:
            self.by = by
            assert seq_length == 4

        def __call__(self, sample: np.ndarray, random: np.random.Generator) -> np.ndarray:
            return sample + self.by + random.integers(0, 2)

    prefix = write(tmp_path / "code", [list(range(50))])
    keys = {"data_path": prefix, "split": "1", "transforms": [{"type": "shift_for_test", "by": 100}]}
    plain = build({**keys, "transforms": []}, train=3)["train"]
    changed = build(keys, train=3)["train"]
    difference = {int(changed[index][0] - plain[index][0]) for index in range(12)}
    assert difference == {100, 101}
    assert all_samples(changed) == all_samples(build(keys, train=3)["train"])


def test_batches_of_all_ranks_make_up_the_global_batch(tmp_path: Path) -> None:
    prefix = write(tmp_path / "code", [list(range(2000))])
    train = build({"data_path": prefix, "split": "1"}, train=480)["train"]

    def step(number: int, *, micro: int, ranks: int, accumulation: int) -> list[list[int]]:
        rows: list[tuple[int, int, list[int]]] = []
        for rank in range(ranks):
            batches = Batches(
                train, micro_batch_size=micro, data_rank=rank, data_size=ranks, first_sample=number * 12
            )
            for turn in range(accumulation):
                token_ids, labels = next(batches)
                assert token_ids.tolist() == [row[:-1] for row in samples(token_ids, labels)]
                rows += [(turn, rank, row) for row in samples(token_ids, labels)]
        return [row for _, _, row in sorted(rows, key=lambda entry: entry[:2])]

    def samples(token_ids: Any, labels: Any) -> list[list[int]]:
        return [[*ids, row[-1]] for ids, row in zip(token_ids.tolist(), labels.tolist())]

    expected = [train[index].tolist() for index in range(36, 48)]
    assert step(3, micro=12, ranks=1, accumulation=1) == expected
    assert step(3, micro=2, ranks=3, accumulation=2) == expected
    assert step(3, micro=1, ranks=4, accumulation=3) == expected


def test_the_position_after_an_end_of_document_is_masked(tmp_path: Path) -> None:
    prefix = write(tmp_path / "code", [[5, 6, 0, 7, 8]])
    train = build({"data_path": prefix, "split": "1"}, train=1)["train"]
    batches = Batches(train, micro_batch_size=1, data_rank=0, data_size=1, masked_eod=0)
    token_ids, labels = next(batches)
    assert token_ids.tolist() == [[5, 6, 0, 7]]
    assert labels.tolist() == [[6, 0, -100, 8]]


def test_metadata_lies_beside_the_dataset(tmp_path: Path) -> None:
    prefix = write(tmp_path / "code", [[1, 2, 3]])
    assert json.loads(Path(f"{prefix}.json").read_text())["num_tokens"] == 3
