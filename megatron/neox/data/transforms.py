"""Changes to samples as they are read: plugins of kind `transform`.

A transform is built once with its YAML options and then called as `transform(sample, random)`: `sample`
holds ids, int64 `[s + 1]`, and the result has the same length. `random` is seeded with the run's seed and the
sample's number, so that what it does depends on nothing else. Offered keyword parameters: `eod`,
`seq_length`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from megatron.neox.config import PartChoice
from megatron.neox.data.packed import SampleDataset
from megatron.neox.errors import UserError
from megatron.neox.plugins import transforms


class Transform(Protocol):
    """What a transform plugin builds."""

    def __call__(self, sample: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The sample to read instead, int64 `[s + 1]`."""
        ...


class TransformedSamples:
    """A dataset whose samples pass through transforms, one after the other."""

    def __init__(self, dataset: SampleDataset, chain: Sequence[tuple[str, Transform]], *, seed: int) -> None:
        self.dataset = dataset
        self.identity = dataset.identity
        self.chain = chain
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> np.ndarray:
        sample = self.dataset[index]
        random = np.random.default_rng([self.seed, index])
        for name, transform in self.chain:
            changed = transform(sample, random)
            if changed.shape != sample.shape:
                raise UserError(
                    f"transform '{name}' turned a sample of {sample.shape} ids into {changed.shape}; "
                    "it must keep the shape"
                )
            sample = changed.astype(np.int64, copy=False)
        return sample


def with_transforms(
    dataset: SampleDataset, choices: Sequence[PartChoice], *, seed: int, seq_length: int, eod: int | None
) -> SampleDataset:
    """`dataset` itself where no transform is chosen, else its transformed samples."""
    if not choices:
        return dataset
    chain = [
        (choice.name, transforms.build(choice.name, options=choice.options, eod=eod, seq_length=seq_length))
        for choice in choices
    ]
    return TransformedSamples(dataset, chain, seed=seed)
