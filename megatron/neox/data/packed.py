"""Samples cut from one tokenized dataset, read from its memory map."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from megatron.neox.data.indexed import IndexedDataset
from megatron.neox.data.order import SampleOrder

NO_TOKEN = -100
"""In the place of an id: there is none, so nothing is predicted there; only others like it follow."""


class SampleDataset(Protocol):
    """Samples by their number in the reading order: `dataset[i]` holds ids, or `NO_TOKEN`, int64 `[s + 1]`.

    Attributes:
        identity: hash of all that the order depends on; equal where sample i is the same sample.
    """

    identity: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


class PackedSamples:
    """Documents laid end to end and cut every `seq_length` tokens (see `order.py`)."""

    def __init__(self, dataset: IndexedDataset, order: SampleOrder, *, identity: str) -> None:
        self.dataset = dataset
        self.order = order
        self.identity = identity

    def __len__(self) -> int:
        return len(self.order.shuffle_index)

    def __getitem__(self, index: int) -> np.ndarray:
        sample = int(self.order.shuffle_index[index])
        (first, first_offset), (last, last_offset) = self.order.sample_index[sample : sample + 2].tolist()
        pieces = []
        for place in range(first, last + 1):
            document = int(self.order.document_index[place])
            start = first_offset if place == first else 0
            stop = last_offset + 1 if place == last else int(self.dataset.sizes[document])
            pieces.append(self.dataset.read(document, start, stop - start))
        return np.concatenate(pieces).astype(np.int64, copy=False)
