"""The order of samples against megatron-core's own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from megatron.neox.data.indexed_writer import IndexedDatasetWriter
from megatron.neox.data.order import build_order, plan_epochs
from megatron.neox.data.split import split_ranges

# megatron-core's imports reach a part of torch that torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")

SIZES = [7, 1, 40, 3, 0, 12, 25, 9, 31, 2, 18, 5, 5, 64, 11, 8, 90, 1, 1, 13]


def write(prefix: Path, sizes: list[int]) -> Path:
    with IndexedDatasetWriter(prefix, np.uint16) as writer:
        for size in sizes:
            writer.add(list(range(1, size + 1)))
    return prefix


def megatron_datasets(prefix: Path, num_samples: list[int], split: str, cache: Path) -> list[Any]:
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    tokenizer = SimpleNamespace(
        vocab_size=1000,
        eod=0,
        eos=0,
        pad=-1,
        unique_identifiers={"class": "none"},
        special_tokens_dict={"eod": 0},
    )
    config = GPTDatasetConfig(
        random_seed=1234,
        sequence_length=16,
        blend=([str(prefix)], None),
        split=split,
        path_to_cache=str(cache),
        tokenizer=tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    return BlendedMegatronDatasetBuilder(GPTDataset, num_samples, lambda: True, config).build()


@pytest.mark.parametrize("num_samples", [5, 17, 20, 27, 60, 74])
def test_the_three_indices_are_megatrons(tmp_path: Path, num_samples: int) -> None:
    prefix = write(tmp_path / "code", SIZES)
    train, _, _ = megatron_datasets(prefix, [num_samples, 0, 0], "90,10,0", tmp_path)
    sizes = np.array(SIZES, dtype=np.int32)
    documents = split_ranges("90,10,0", len(SIZES))["train"]
    num_tokens = int(sizes[: documents.stop].sum())
    epochs = plan_epochs(num_tokens, seq_length=16, num_samples=num_samples)
    order = build_order(sizes, documents, seq_length=16, seed=1234, epochs=epochs)
    assert order.document_index.tolist() == train.document_index.tolist()
    assert order.sample_index.tolist() == train.sample_index.tolist()
    assert order.shuffle_index.tolist() == train.shuffle_index.tolist()


# Every share must give a document here: megatron-core never returns from an empty split.
@pytest.mark.parametrize(
    "split", ["969, 30, 1", "989,10,1", "98,2", "1", "70,20,10", "0.5,0.25,0.25", "1,1,1"]
)
def test_split_boundaries_are_megatrons(tmp_path: Path, split: str) -> None:
    prefix = write(tmp_path / "code", [20] * 1003)
    ours = split_ranges(split, 1003)
    theirs = megatron_datasets(prefix, [1, 1, 1], split, tmp_path)
    for documents, dataset in zip(ours.values(), theirs):
        assert list(documents) == ([] if dataset is None else dataset.indices.tolist())
