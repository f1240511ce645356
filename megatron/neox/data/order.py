"""The order in which a dataset's tokens become samples: three index arrays, all functions of a seed.

Documents are shuffled and laid end to end. Sample k is the `s + 1` tokens from position `k * s` on, so that
neighbours share one token: the last label of one is the first input of the next. Samples are shuffled too:

    document_index  [documents * epochs]  document that stands at each place of the line
    sample_index    [samples + 1, 2]      place in document_index, and offset in that document, where k begins
    shuffle_index   [samples]             sample that is read i-th

The arrays equal those of megatron-core 0.16 (`GPTDataset`), and for one epoch those of GPT-NeoX, given the
same seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Where less than this share of the last epoch is needed, its documents are shuffled by themselves, so that
# the samples left out do not come from all epochs alike (megatron-core).
_FINAL_EPOCH_SHARE = 0.80


@dataclass(frozen=True)
class Epochs:
    """How often a dataset is read, and whether its last pass is shuffled by itself."""

    count: int
    separate_final: bool
    samples_before_final: int  # samples that lie in the passes before the last


def plan_epochs(num_tokens: int, *, seq_length: int, num_samples: int) -> Epochs:
    """Passes over `num_tokens` tokens that give `num_samples` samples of `seq_length + 1` tokens."""
    needed = num_samples * seq_length + 1
    count = max(1, -(-needed // num_tokens))
    before_final = ((count - 1) * num_tokens - 1) // seq_length
    if count == 1:
        return Epochs(1, False, 0)
    in_final = num_samples - before_final
    in_epoch = (num_tokens - 1) // seq_length
    return Epochs(count, in_final < int(_FINAL_EPOCH_SHARE * in_epoch), before_final)


@dataclass(frozen=True)
class SampleOrder:
    """The three arrays; see the module."""

    document_index: np.ndarray
    sample_index: np.ndarray
    shuffle_index: np.ndarray


def build_order(
    sizes: np.ndarray, documents: range, *, seq_length: int, seed: int, epochs: Epochs
) -> SampleOrder:
    """Lay out `documents`, whose lengths stand in `sizes`, for `epochs` passes."""
    random = np.random.RandomState(seed)
    document_index = _document_index(documents, epochs, random)
    sample_index = _sample_index(sizes, document_index, seq_length)
    num_samples = len(sample_index) - 1
    first = epochs.samples_before_final if epochs.separate_final else num_samples
    shuffle_index = np.arange(num_samples, dtype=np.int64)
    random.shuffle(shuffle_index[:first])
    if first < num_samples:
        random.shuffle(shuffle_index[first:])
    return SampleOrder(document_index, sample_index, shuffle_index)


def _document_index(documents: range, epochs: Epochs, random: np.random.RandomState) -> np.ndarray:
    once = np.arange(documents.start, documents.stop, dtype=np.int32)
    line = np.tile(once, epochs.count)
    first = len(line) - len(once) if epochs.separate_final else len(line)
    random.shuffle(line[:first])
    if first < len(line):
        random.shuffle(line[first:])
    return line


def _sample_index(sizes: np.ndarray, document_index: np.ndarray, seq_length: int) -> np.ndarray:
    ends = np.cumsum(sizes[document_index], dtype=np.int64)  # first position behind each place's document
    num_samples = (int(ends[-1]) - 1) // seq_length
    starts = np.arange(num_samples + 1, dtype=np.int64) * seq_length
    places = np.searchsorted(ends, starts, side="right")  # empty documents are stepped over
    offsets = starts - ends[places] + sizes[document_index[places]]
    index = np.stack([places, offsets], axis=1)
    index[0] = 0  # the line begins at its first document even if that one is empty
    return index
