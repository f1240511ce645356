"""Micro-batches of one data-parallel rank, as slices of one global order.

With `b` samples in a micro-batch, `d` data-parallel ranks and a run that begins at sample F, micro-batch j of
rank r holds the samples

    F + (j * d + r) * b + i        for i in 0 .. b-1

of the reading order. Step N, of B = b * d * gradient_accumulation_steps samples, so reads the samples
N*B .. N*B+B-1, however B is divided into b, d and accumulation steps, and any step can be begun without
reading those before it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from megatron.neox.data.packed import NO_TOKEN, SampleDataset
from megatron.neox.errors import VocabularyError

IGNORED_LABEL = NO_TOKEN  # the loss leaves these positions out


class Batches:
    """Iterator of `(token_ids [b, s], labels [b, s])`, int64; labels are the ids one place on.

    Where a sample has no token, the label is -100 and the id 0, which no position that counts attends to.

    Args:
        first_sample: sample of the global order at which step begins, the same on every rank.
        masked_eod: id after which nothing is predicted: its position's label is -100. None masks nothing.
        vocab_size: ids at or above it are refused, instead of reading beyond the embedding.

    Raises (while iterating):
        VocabularyError: a sample holds an id outside the vocabulary.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        *,
        micro_batch_size: int,
        data_rank: int,
        data_size: int,
        first_sample: int = 0,
        masked_eod: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.micro_batch_size = micro_batch_size
        self.stride = micro_batch_size * data_size
        self.next_sample = first_sample + data_rank * micro_batch_size
        self.masked_eod = masked_eod
        self.vocab_size = vocab_size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = range(self.next_sample, self.next_sample + self.micro_batch_size)
        if numbers.stop > len(self.dataset):
            raise StopIteration
        self.next_sample += self.stride
        samples = np.stack([self.dataset[number] for number in numbers])
        check_ids(samples, numbers, vocab_size=self.vocab_size)
        return split_samples(samples, masked_eod=self.masked_eod)


def split_samples(samples: np.ndarray, *, masked_eod: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [b, s] and labels [b, s] of samples [b, s + 1]."""
    ids = torch.from_numpy(samples)
    token_ids, labels = ids[:, :-1].clamp(min=0), ids[:, 1:].clone()
    if masked_eod is not None:
        labels[token_ids == masked_eod] = IGNORED_LABEL
    return token_ids, labels


def check_ids(samples: np.ndarray, numbers: range, *, vocab_size: int | None) -> None:
    """Refuse ids at or above `vocab_size`.

    Raises:
        VocabularyError: a sample holds one.
    """
    largest = int(samples.max())
    if vocab_size is not None and largest >= vocab_size:
        raise VocabularyError(
            f"samples {numbers.start} to {numbers.stop - 1} hold token id {largest}, but the model's "
            f"vocabulary has {vocab_size} ids; train with the tokenizer of the dataset"
        )
