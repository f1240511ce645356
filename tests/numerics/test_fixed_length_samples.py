"""Samples of a fixed length train as the same samples cut from a .bin/.idx pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron.neox.config import DataConfig
from megatron.neox.data.batches import Batches
from megatron.neox.data.indexed_writer import IndexedDatasetWriter
from megatron.neox.data.samples import build_datasets
from megatron.neox.engine.grid import ProcessGrid
from tests.forked_ranks import run_ranks
from tests.numerics.tiny_run import SEQ_LENGTH, VOCABULARY, engine_on, make_config
from tests.unit.data.test_pickled import write

EOD = 0
COUNT = 12


def samples() -> list[list[int]]:
    """Ends of document end each sample and fill every third."""
    random = np.random.default_rng(5)
    lengths = [SEQ_LENGTH - 1 if number % 3 else 7 for number in range(COUNT)]
    return [
        [*random.integers(1, VOCABULARY, length).tolist(), *[EOD] * (SEQ_LENGTH - length)]
        for length in lengths
    ]


def batches(keys: dict[str, Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One sample each, in the order of their ids."""
    dataset = build_datasets(
        DataConfig.model_validate(keys), seq_length=SEQ_LENGTH, seed=3, num_samples={"train": COUNT - 1}, rank=0,
        barrier=lambda: None,
    )["train"]  # fmt: skip
    assert dataset is not None
    read = Batches(
        dataset, micro_batch_size=1, data_rank=0, data_size=1, masked_eod=EOD, vocab_size=VOCABULARY
    )
    return sorted(read, key=lambda batch: batch[0].tolist())


def evaluate(all_batches: list[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    config = make_config({})
    with ProcessGrid.build(config.parallelism) as grid:
        engine = engine_on(grid, config)
        return [engine.evaluate(iter([batch]), 1) for batch in all_batches]


@pytest.mark.parametrize("pad_token", [-1, EOD], ids=["an end of document is masked", "it is padding"])
def test_losses_equal_those_of_the_same_samples_from_a_prefix(tmp_path: Path, pad_token: int) -> None:
    folder = str(write(tmp_path / "folder", {"dump-0.pkl": samples()}))
    with IndexedDatasetWriter(str(tmp_path / "code"), np.uint16) as writer:
        for sample in samples():
            writer.add(sample)
    fixed = batches({"train_data_paths": [folder], "pad_token": pad_token})
    packed = batches({"train_data_paths": [str(tmp_path / "code")]})
    inputs = [ids.tolist() for ids, _ in packed]
    assert len(inputs) == COUNT - 1  # the last document lacks the token behind it
    fixed = [batch for batch in fixed if batch[0].tolist() in inputs]
    if pad_token == EOD:  # then the end of document that stands before the padding is taken for padding, too
        lengths = [(labels >= 0).sum().item() for _, labels in packed]
        assert [(labels >= 0).sum().item() for _, labels in fixed] == [length - 1 for length in lengths]
        packed = [(ids, labels.where(labels != EOD, -100)) for ids, labels in packed]
    for (ids, labels), (same_ids, same_labels) in zip(fixed, packed, strict=True):
        assert torch.equal(ids, same_ids)
        assert torch.equal(labels, same_labels)
    (losses,) = run_ranks(1, evaluate, fixed)
    assert (losses,) == tuple(run_ranks(1, evaluate, packed))
    assert all(loss > 0 for loss in losses)
