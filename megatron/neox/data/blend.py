"""Several datasets read as one, in the shares that their weights say.

Dataset d's j-th sample falls due at `(j + 1/2) / weight_d`; samples are read as they fall due. So after any
number n of samples every dataset has given `weight_d * n` of them, within one or so, and which sample comes
i-th does not depend on how many are read in all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megatron.neox.data.packed import SampleDataset
from megatron.neox.errors import ConfigError


def blend_weights(
    given: Sequence[float],
    *,
    num_tokens: Sequence[int],
    num_documents: Sequence[int],
    by_documents: bool,
    alpha: float,
    key: str,
) -> list[float]:
    """Normalised weights: the given ones, else documents ** alpha, else tokens.

    Args:
        key: YAML key of `given`, for messages.

    Raises:
        ConfigError: not one weight for each dataset, or all of them zero.
    """
    if by_documents:
        raw = [count**alpha for count in num_documents]
    elif given:
        if len(given) != len(num_tokens):
            raise ConfigError(
                [f"{key} holds {len(given)} weights for {len(num_tokens)} datasets; give one for each"]
            )
        raw = [float(weight) for weight in given]
    else:
        raw = [float(count) for count in num_tokens]
    total = sum(raw)
    if total <= 0:
        raise ConfigError([f"{key} are all zero; give at least one dataset a weight above 0"])
    return [weight / total for weight in raw]


def blend_order(weights: Sequence[float], num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `num_samples` samples, its dataset [n] (int32) and its number there [n] (int64)."""
    counts = [int(np.ceil(weight * num_samples)) + 2 if weight > 0 else 0 for weight in weights]
    dataset = np.repeat(np.arange(len(weights), dtype=np.int32), counts)
    number = np.concatenate([np.arange(count, dtype=np.int64) for count in counts])
    due = (number + 0.5) / np.asarray(weights, dtype=np.float64).clip(min=1e-300)[dataset]
    first = np.argsort(due, kind="stable")[:num_samples]
    return dataset[first], number[first]


class BlendedSamples:
    """Samples of several datasets, in the order of `blend_order`."""

    def __init__(
        self,
        datasets: Sequence[SampleDataset | None],
        dataset: np.ndarray,
        number: np.ndarray,
        *,
        identity: str,
    ) -> None:
        self.datasets = datasets
        self.dataset = dataset
        self.number = number
        self.identity = identity

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> np.ndarray:
        chosen = self.datasets[int(self.dataset[index])]
        assert chosen is not None, "a dataset of weight 0 was drawn"
        return chosen[int(self.number[index])]
