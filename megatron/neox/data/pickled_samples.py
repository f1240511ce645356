"""Folders of fixed-length samples as training reads them: mapped into memory, padding left out of the loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from megatron.neox.data.index_cache import cached_arrays, file_digest, settings_digest
from megatron.neox.data.indexed import dtype_for
from megatron.neox.data.packed import NO_TOKEN
from megatron.neox.data.pickled import Dump, find_dumps, is_dump_folder, read_dump
from megatron.neox.data.pretokenize_folder import read_origin, shared_characters
from megatron.neox.errors import ConfigError, DatasetError

log = logging.getLogger(__name__)

NO_PADDING = -1
"""Value of the key pad_token for folders whose samples are all full."""


class DumpedSamples:
    """All samples of a folder, in the order they lie in.

    Args:
        parts: ids of each dump, `[n, s]`.
        lengths: ids of each sample that are no padding, int32 `[n]`, over all parts.

    Attributes:
        digest: hash of the samples and of where their padding begins.
    """

    def __init__(self, parts: list[np.ndarray], lengths: np.ndarray, *, digest: str) -> None:
        self.parts = parts
        self.lengths = lengths
        self.seq_length = int(parts[0].shape[1])
        self.digest = digest
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """Ids that are no padding."""
        return int(self.lengths.sum(dtype=np.int64))

    def read(self, number: int) -> np.ndarray:
        """A sample, int64 `[s + 1]`; padding, and the id behind the last one, are `NO_TOKEN`."""
        part = int(np.searchsorted(self._ends, number, side="right"))
        ids = self.parts[part][number - int(self._ends[part])]
        length = int(self.lengths[number])
        sample = np.full(self.seq_length + 1, NO_TOKEN, np.int64)
        sample[:length] = ids[:length]
        return sample


class ShuffledSamples:
    """Some samples of a folder, each once an epoch, shuffled anew in each by a seed.

    The order of an epoch depends on the seed and its number alone, so it is the same however many follow.
    """

    def __init__(
        self, samples: DumpedSamples, numbers: range, *, seed: int, num_samples: int, identity: str
    ) -> None:
        self.samples = samples
        self.numbers = numbers
        self.identity = identity
        self.num_epochs = max(1, -(-num_samples // len(numbers)))
        self._order = lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng([seed, epoch]).permutation(len(numbers))
        )

    def __len__(self) -> int:
        return self.num_epochs * len(self.numbers)

    def __getitem__(self, index: int) -> np.ndarray:
        epoch, place = divmod(index, len(self.numbers))
        return self.samples.read(self.numbers[int(self._order(epoch)[place])])


def open_dumps(
    folder: str, *, pad_token: int | None, cache: Path, builder: bool, barrier: Callable[[], None]
) -> DumpedSamples:
    """The samples of a folder; pickles are written once into `cache` as arrays, which all processes map.

    Args:
        pad_token: id that fills samples, for a folder that does not record its padding.

    Raises:
        ConfigError: nothing says which id fills samples.
        DatasetError: the folder or a file of it is damaged.
    """
    dumps = [dump for dump in find_dumps(Path(folder)).dumps if dump.num_samples]
    origin = read_origin(Path(folder)) or {}
    recorded = origin.get("files", {})
    if not dumps:
        raise DatasetError(f"{folder} holds no samples; make it with tools/tokenize_data.py")
    if not origin and pad_token is None:
        raise ConfigError(
            [
                f"{folder} does not record what fills its samples: give pad_token, 32014 for the original program's "
                f"default, or {NO_PADDING} where all are full"
            ]
        )
    parts, lengths, digests = [], [], []
    for dump in dumps:
        counts = recorded.get(dump.path.name, {})
        digest = counts.get("sha256") or file_digest(dump.path)
        part = _mapped(dump, digest, cache, builder, barrier)
        if parts and part.shape[1] != parts[0].shape[1]:
            raise DatasetError(
                f"{dump.path} holds samples of {part.shape[1]} ids, {dumps[0].path} of {parts[0].shape[1]}; "
                "make the folder anew"
            )
        parts.append(part)
        lengths.append(_recorded_lengths(part, counts) if counts else _lengths(part, pad_token))
        digests.append(digest)
    joined = np.concatenate(lengths)
    digests.append(
        settings_digest(
            {"padded": [[int(i), int(joined[i])] for i in np.flatnonzero(joined < parts[0].shape[1])]}
        )
    )
    return DumpedSamples(parts, joined, digest=settings_digest({"dumps": digests}))


def refuse_shared_slices(train: Sequence[str], other: Sequence[str], key: str) -> None:
    """Refuse folders of samples that hold characters that training reads.

    Args:
        key: that names the folders of `other`.

    Raises:
        ConfigError: some do, as their origins tell; or a folder is both.
    """
    problems = []
    for folder in filter(is_dump_folder, other):
        for read in filter(is_dump_folder, train):
            ours, theirs = (read_origin(Path(path)) for path in (read, folder))
            if Path(read).resolve() == Path(folder).resolve():
                problems.append(
                    f"{key} and train_data_paths both name {folder}; make a slice of its own for it"
                )
            elif ours and theirs and (shared := shared_characters(ours, theirs)):
                problems.append(
                    f"{key}: {folder} holds characters {shared[0]} to {shared[1]} that {read}, in train_data_paths, "
                    f"holds too; make it anew: tools/tokenize_data.py --valid-of {read}"
                )
    if problems:
        raise ConfigError(problems)


def _mapped(dump: Dump, digest: str, cache: Path, builder: bool, barrier: Callable[[], None]) -> np.ndarray:
    if dump.path.suffix == ".npy":
        return read_dump(dump)

    def build() -> dict[str, np.ndarray]:
        samples = read_dump(dump)
        return {"samples": samples.astype(dtype_for(int(samples.max()) + 1))}

    stem = settings_digest({"dump": digest, "num_samples": dump.num_samples, "num_tokens": dump.num_tokens})
    return cached_arrays(cache, stem, build, builder=builder, barrier=barrier)["samples"]


def _recorded_lengths(part: np.ndarray, counts: dict[str, int]) -> np.ndarray:
    """Only the last sample of a piece is ever filled."""
    lengths = np.full(len(part), part.shape[1], np.int32)
    lengths[-1] -= int(counts["num_padding"])
    return lengths


def _lengths(part: np.ndarray, pad_token: int | None) -> np.ndarray:
    """Without the run of `pad_token` that ends a sample."""
    lengths = np.full(len(part), part.shape[1], np.int32)
    for row in np.flatnonzero(part[:, -1] == pad_token):
        others = np.flatnonzero(part[row] != pad_token)
        lengths[row] = others[-1] + 1 if len(others) else 0
    return lengths
