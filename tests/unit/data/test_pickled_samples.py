"""Folders of fixed-length samples in training: order, padding, splits, blends, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from megatron.neox.config import DataConfig, TokenizerConfig
from megatron.neox.data.batches import Batches
from megatron.neox.data.indexed_writer import IndexedDatasetWriter
from megatron.neox.data.pretokenize import PretokenizeSettings, pretokenize
from megatron.neox.data.provenance import check_tokenizer, read_eod
from megatron.neox.data.samples import build_datasets
from megatron.neox.errors import ConfigError, DatasetError, VocabularyError
from megatron.neox.plugins import transforms
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.unit.data.test_pickled import write

NONE = -100


def make(folder: Path, **keys: Any) -> str:
    """Two pieces of 50 characters: 6 samples and a filled one each, in dumps of 4."""
    source = folder.with_name("a.parquet")
    parquet.write_table(pa.table({"content": ["".join(map(chr, range(1, 101)))]}), source)
    defaults: dict[str, Any] = {
        "data_file": source, "tokenization_folder": folder, "pad_token": 500, "chunk_size": 50, "seq_length": 8,
        "tokenizer": TokenizerConfig(tokenizer_type="CharLevelTokenizer"), "min_sample_length": 1, "max_dump_size": 4,
    }  # fmt: skip
    pretokenize(PretokenizeSettings(**{**defaults, **keys}))
    return str(folder)


def build(
    keys: dict[str, Any], *, seq_length: int = 8, rank: int = 0, seed: int = 7, **num_samples: int
) -> Any:
    return build_datasets(
        DataConfig.model_validate(keys), seq_length=seq_length, seed=seed, num_samples=num_samples, rank=rank,
        barrier=lambda: None,
    )  # fmt: skip


def rows(dataset: Any, first: int = 0, count: int | None = None) -> list[list[int]]:
    return [dataset[index].tolist() for index in range(first, first + (count or len(dataset)))]


def expected() -> list[list[int]]:
    pieces = [list(range(1, 51)), list(range(51, 101))]
    cut = [piece[at : at + 8] for piece in pieces for at in range(0, 50, 8)]
    return [sample + [NONE] * (9 - len(sample)) for sample in cut]


@pytest.mark.parametrize("form", ["pickle", "mmap"])
def test_every_sample_comes_once_an_epoch(tmp_path: Path, form: str) -> None:
    folder = make(tmp_path / "out", form=form)
    train = build({"train_data_paths": [folder]}, train=30)["train"]
    assert len(train) == 42
    epochs = [rows(train, 14 * epoch, 14) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(expected())
    assert epochs[0] != epochs[1] != epochs[2]
    more = build({"train_data_paths": [folder]}, train=100)["train"]
    assert more.identity == train.identity
    assert rows(more, 0, 42) == rows(train)
    other = build({"train_data_paths": [folder]}, train=14, seed=8)["train"]
    assert rows(other) != epochs[0]
    assert other.identity != train.identity


def test_pickles_are_mapped_after_they_were_read_once(tmp_path: Path) -> None:
    folder = make(tmp_path / "out")
    opened = build({"train_data_paths": [folder]}, train=1)["train"].samples
    assert all(isinstance(part, np.memmap) and part.dtype == np.uint16 for part in opened.parts)
    names = sorted(path.name for path in (tmp_path / "index_cache").iterdir())
    assert len(names) == 8
    build({"train_data_paths": [folder]}, train=1)
    assert sorted(path.name for path in (tmp_path / "index_cache").iterdir()) == names
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_padding_is_never_predicted(tmp_path: Path) -> None:
    folder = make(tmp_path / "out")
    train = build({"train_data_paths": [folder]}, train=14)["train"]
    batches = Batches(train, micro_batch_size=14, data_rank=0, data_size=1, vocab_size=256)
    token_ids, labels = next(batches)
    for ids, wanted in zip(token_ids.tolist(), labels.tolist(), strict=True):
        real = [token for token in ids if token]
        assert ids == real + [0] * (8 - len(real))
        assert wanted == real[1:] + [NONE] * (9 - len(real))
    assert sum(token == 0 for ids in token_ids.tolist() for token in ids) == 12


def test_data_path_is_split_by_samples(tmp_path: Path) -> None:
    folder = make(tmp_path / "out")
    built = build({"data_path": folder, "split": "50,50"}, train=7, valid=7)
    assert sorted(rows(built["train"])) == sorted(expected()[:7])
    assert sorted(rows(built["valid"])) == sorted(expected()[7:])
    assert build({"data_path": folder, "split": "1"}, train=7, valid=7)["valid"] is None


def test_folders_blend_with_each_other_and_with_other_datasets(tmp_path: Path) -> None:
    folder = make(tmp_path / "out")
    with IndexedDatasetWriter(str(tmp_path / "code"), np.uint16) as writer:
        writer.add([200] * 400)
    keys = {"train_data_paths": [folder, str(tmp_path / "code")], "train_data_weights": [1, 3]}
    train = build(keys, train=40)["train"]
    assert [train[index][0] == 200 for index in range(40)].count(True) == 30
    by_tokens = build({"train_data_paths": [folder, str(tmp_path / "code")]}, train=50)["train"]
    assert [by_tokens[index][0] == 200 for index in range(50)].count(True) == 40  # 100 ids against 400


def test_a_folder_of_the_original_needs_to_be_told_its_padding(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "a", {"dump-0.pkl": [[5, 5, 9, 9], [9, 5, 5, 5], [9, 9, 9, 9]]}))
    with pytest.raises(
        ConfigError, match=r"a does not record what fills its samples: give pad_token, 32014 for"
    ):
        build({"train_data_paths": [folder]}, seq_length=4, train=1)
    train = build({"train_data_paths": [folder], "pad_token": 9}, seq_length=4, train=1)["train"]
    assert sorted(rows(train)) == [[NONE] * 5, [5, 5, NONE, NONE, NONE], [9, 5, 5, 5, NONE]]
    full = build({"train_data_paths": [folder], "pad_token": -1}, seq_length=4, train=1)["train"]
    assert full.samples.lengths.tolist() == [4, 4, 4]
    assert full.identity != train.identity


def test_an_end_that_looks_like_padding_counts_where_the_padding_is_recorded(tmp_path: Path) -> None:
    folder = make(tmp_path / "out", pad_token=50)  # the first piece ends with the id 50
    opened = build({"train_data_paths": [folder]}, train=1)["train"].samples
    assert opened.lengths.tolist() == ([8] * 6 + [2]) * 2
    assert opened.num_tokens == 100


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "out")
    with pytest.raises(
        DatasetError, match=r"holds samples of 8 ids, but seq_length is 16; give seq_length: 8, or"
    ):
        build({"train_data_paths": [folder]}, seq_length=16, train=1)
    with pytest.raises(
        DatasetError, match=r"train data has none of 14 samples; give another split than '0,1'"
    ):
        build({"data_path": folder, "split": "0,1"}, train=1)
    transforms.register("same")(lambda: lambda sample, random: sample)
    with pytest.raises(ConfigError, match=r"transforms need \.bin/\.idx datasets"):
        build({"train_data_paths": [folder], "transforms": ["same"]}, train=1)


def test_the_tokenizer_is_compared(tmp_path: Path) -> None:
    folder = make(tmp_path / "out")
    same = CharLevelTokenizer().fingerprint()
    check_tokenizer([folder], fingerprint=same, padded_vocab_size=512)
    assert read_eod(folder) == 0
    with pytest.raises(
        VocabularyError, match="out was made with another tokenizer than this run's: vocab_size 512"
    ):
        check_tokenizer([folder], fingerprint={**same, "vocab_size": 600}, padded_vocab_size=640)
    (tmp_path / "out" / "dump-origin.yml").write_text(json.dumps([]))
    with pytest.raises(DatasetError, match=r"dump-origin\.yml is damaged"):
        build({"train_data_paths": [folder]}, train=1)


def test_validation_that_reads_what_training_reads_is_refused(tmp_path: Path) -> None:
    train = make(tmp_path / "train", chars_to_tokenize=60)
    apart = make(tmp_path / "apart", starting_character=60)
    shared = make(tmp_path / "shared", starting_character=59)
    keys = {"train_data_paths": [train], "valid_data_paths": [apart], "test_data_paths": [apart]}
    assert len(build(keys, train=1, valid=1)["valid"])
    told = rf"test_data_paths: {shared} holds characters 59 to 60 that {train}, .* --valid-of {train}"
    with pytest.raises(ConfigError, match=told):
        build({**keys, "test_data_paths": [apart, shared]}, train=1)
    with pytest.raises(ConfigError, match=f"valid_data_paths and train_data_paths both name {train}"):
        build({**keys, "valid_data_paths": [train]}, train=1)
