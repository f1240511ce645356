"""From the YAML keys of the data section to samples in reading order.

One dataset (`data_path`) is divided by `split`; or train, validation and test have datasets of their own
(`train_data_paths` and so on), blended by weight. A dataset is the prefix of a .bin/.idx pair, or a folder of
samples of a fixed length (`pickled_samples.py`). The order is a function of the files' contents, the seed,
the sequence length and the number of samples; processes only read it (see `order.py` and `blend.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megatron.neox.config import DataConfig
from megatron.neox.data.blend import BlendedSamples, blend_order, blend_weights
from megatron.neox.data.index_cache import cached_arrays, file_digest, settings_digest
from megatron.neox.data.indexed import IndexedDataset
from megatron.neox.data.order import SampleOrder, build_order, plan_epochs
from megatron.neox.data.packed import PackedSamples, SampleDataset
from megatron.neox.data.pickled import is_dump_folder
from megatron.neox.data.pickled_samples import (
    DumpedSamples,
    ShuffledSamples,
    open_dumps,
    refuse_shared_slices,
)
from megatron.neox.data.split import SPLITS, split_ranges
from megatron.neox.data.stream_source import is_stream
from megatron.neox.data.transforms import with_transforms
from megatron.neox.errors import ConfigError, DatasetError

__all__ = ["SampleDataset", "build_datasets", "data_prefixes", "stream_of"]

log = logging.getLogger(__name__)

Opened = IndexedDataset | DumpedSamples


def data_prefixes(data: DataConfig) -> dict[str, list[str]]:
    """The dataset prefixes of each split that has any; `data_path` serves all three.

    Raises:
        ConfigError: no dataset is named, or both data_path and datasets of single splits are.
    """
    for name in SPLITS:
        if data.data_path and getattr(data, f"{name}_data_paths"):
            raise ConfigError([f"data_path and {name}_data_paths are both given; keep one of them"])
    if data.data_path:
        return {name: [data.data_path] for name in SPLITS}
    if not data.train_data_paths:
        raise ConfigError(
            [
                "no training data: give data_path (the prefix of a .bin/.idx pair, made by "
                "tools/preprocess_data.py), or train_data_paths"
            ]
        )
    paths = {"train": data.train_data_paths, "valid": data.valid_data_paths, "test": data.test_data_paths}
    return {name: list(prefixes) for name, prefixes in paths.items() if prefixes}


def stream_of(data: DataConfig, name: str) -> str | None:
    """The stream that a split is read from; None where it is read from datasets.

    Raises:
        ConfigError: a stream is to be divided, mixed with other data, or changed by transforms.
    """
    if is_stream(data.data_path or ""):
        raise ConfigError(
            [f"data_path {data.data_path} is a stream, which cannot be divided; give train_data_paths: [...]"]
        )
    paths: list[str] = getattr(data, f"{name}_data_paths")
    if not any(map(is_stream, paths)):
        return None
    if len(paths) > 1:
        raise ConfigError(
            [
                f"{name}_data_paths holds a stream and other data, {', '.join(paths)}; a stream stands alone "
                "(one folder may hold many files)"
            ]
        )
    if data.transforms and name == "train":
        raise ConfigError(
            ["transforms need .bin/.idx datasets, and train_data_paths is a stream; remove transforms"]
        )
    return paths[0]


@dataclass(frozen=True)
class _Build:
    """What every dataset of a run is built with."""

    data: DataConfig
    seq_length: int
    seed: int
    builder: bool
    barrier: Callable[[], None]


def build_datasets(
    data: DataConfig,
    *,
    seq_length: int,
    seed: int,
    num_samples: Mapping[str, int],
    rank: int,
    barrier: Callable[[], None],
    eod: int | None = None,
) -> dict[str, SampleDataset | None]:
    """Samples of "train", "valid" and "test"; None where 0 samples are asked for or no documents are given.

    Args:
        num_samples: samples that will be read of each split; a dataset is read several times if need be.
        barrier: called by every rank, equally often; rank 0 writes the index files before it.

    Raises:
        ConfigError: keys of the data section are missing or contradict each other.
        DatasetError: a dataset is damaged, or too short for one sample.
    """
    build = _Build(data, seq_length, seed, rank == 0, barrier)
    datasets: dict[str, SampleDataset | None] = dict.fromkeys(SPLITS)
    opened: dict[str, Opened] = {}
    for name in ("valid", "test"):
        refuse_shared_slices(data.train_data_paths, getattr(data, f"{name}_data_paths"), f"{name}_data_paths")
    for name, prefixes in data_prefixes(data).items():
        wanted = num_samples.get(name, 0)
        if wanted == 0 or stream_of(data, name):
            continue
        for prefix in prefixes:
            opened[prefix] = opened.get(prefix) or _open(build, prefix)
        samples = _build_split(build, name, {prefix: opened[prefix] for prefix in prefixes}, wanted)
        if samples is not None:
            # Validation passes through no transform: its loss must stay comparable.
            chosen = data.transforms if name == "train" else []
            if chosen and any(isinstance(opened[prefix], DumpedSamples) for prefix in prefixes):
                raise ConfigError(
                    [
                        "transforms need .bin/.idx datasets: samples of a fixed length may hold padding, which a "
                        "transform would move; remove transforms"
                    ]
                )
            samples = with_transforms(samples, chosen, seed=seed, seq_length=seq_length, eod=eod)
        datasets[name] = samples
    return datasets


def _open(build: _Build, prefix: str) -> Opened:
    if not is_dump_folder(prefix):
        return IndexedDataset(prefix)
    opened = open_dumps(
        prefix,
        pad_token=build.data.pad_token,
        cache=_cache_folder(build.data, prefix),
        builder=build.builder,
        barrier=build.barrier,
    )
    if opened.seq_length != build.seq_length:
        raise DatasetError(
            f"{prefix} holds samples of {opened.seq_length} ids, but seq_length is {build.seq_length}; give "
            f"seq_length: {opened.seq_length}, or make it anew: tools/tokenize_data.py --seq_length {build.seq_length}"
        )
    return opened


def _build_split(
    build: _Build, name: str, opened: Mapping[str, Opened], num_samples: int
) -> SampleDataset | None:
    if build.data.data_path:
        ((prefix, dataset),) = opened.items()
        documents = split_ranges(build.data.split, len(dataset))[name]
        return _ordered(build, name, prefix, dataset, documents, num_samples)
    ranges = {prefix: range(len(dataset)) for prefix, dataset in opened.items()}
    if len(opened) == 1:
        ((prefix, dataset),) = opened.items()
        return _ordered(build, name, prefix, dataset, ranges[prefix], num_samples)
    return _blended(build, name, opened, num_samples)


def _blended(
    build: _Build, name: str, opened: Mapping[str, Opened], num_samples: int
) -> SampleDataset | None:
    key = f"{name}_data_weights"
    given: Sequence[float] = getattr(build.data, key)
    weights = blend_weights(
        given,
        num_tokens=[dataset.num_tokens for dataset in opened.values()],
        num_documents=[len(dataset) for dataset in opened.values()],
        by_documents=build.data.weight_by_num_documents,
        alpha=build.data.weighted_sampler_alpha,
        key=key,
    )
    order = cached_arrays(
        _cache_folder(build.data, next(iter(opened))),
        settings_digest({"blend": weights, "num_samples": num_samples}),
        lambda: dict(zip(("dataset", "number"), blend_order(weights, num_samples))),
        builder=build.builder,
        barrier=build.barrier,
    )
    counts = np.bincount(order["dataset"], minlength=len(weights)).tolist()
    parts = [
        _ordered(build, name, prefix, dataset, range(len(dataset)), count) if count else None
        for (prefix, dataset), count in zip(opened.items(), counts)
    ]
    shares = ", ".join(f"{prefix} {weight:.4f}" for prefix, weight in zip(opened, weights))
    log.info("%s data is a blend of %s", name, shares)
    # The first samples of a blend are the same however many follow, so their number is no part of this.
    identity = settings_digest({"blend": weights, "parts": [part and part.identity for part in parts]})
    return BlendedSamples(parts, order["dataset"], order["number"], identity=identity)


def _ordered(
    build: _Build, name: str, prefix: str, dataset: Opened, documents: range, num_samples: int
) -> SampleDataset | None:
    """Samples of some documents, or of some samples of fixed length, in reading order."""
    if len(documents) == 0 and name != "train":
        return None
    if isinstance(dataset, DumpedSamples):
        return _shuffled(build, name, prefix, dataset, documents, num_samples)
    return _packed(build, name, prefix, dataset, documents, num_samples)


def _shuffled(
    build: _Build, name: str, prefix: str, dataset: DumpedSamples, numbers: range, num_samples: int
) -> SampleDataset:
    if not numbers:
        raise DatasetError(
            f"{prefix}: {name} data has none of {len(dataset)} samples; give another split than '{build.data.split}'"
        )
    identity = settings_digest(
        {"dumps": dataset.digest, "samples": [numbers.start, numbers.stop], "seed": build.seed}
    )
    samples = ShuffledSamples(dataset, numbers, seed=build.seed, num_samples=num_samples, identity=identity)
    log.info(
        "%s data: %s samples of %d ids, epochs: %d (%s)",
        name, f"{len(numbers):,}", dataset.seq_length, samples.num_epochs, prefix,
    )  # fmt: skip
    return samples


def _packed(
    build: _Build, name: str, prefix: str, dataset: IndexedDataset, documents: range, num_samples: int
) -> SampleDataset:
    num_tokens = int(np.sum(dataset.sizes[documents.start : documents.stop], dtype=np.int64))
    if num_tokens < build.seq_length + 1:
        raise DatasetError(_too_short(build, name, prefix, dataset, documents, num_tokens))
    epochs = plan_epochs(num_tokens, seq_length=build.seq_length, num_samples=num_samples)
    identity = settings_digest(
        {
            "idx": file_digest(Path(f"{prefix}.idx")),
            "documents": [documents.start, documents.stop],
            "seq_length": build.seq_length,
            "seed": build.seed,
            "epochs": epochs.count,
            "separate_final": epochs.separate_final,
        }
    )
    arrays = cached_arrays(
        _cache_folder(build.data, prefix),
        identity,
        lambda: vars(
            build_order(dataset.sizes, documents, seq_length=build.seq_length, seed=build.seed, epochs=epochs)
        ),
        builder=build.builder,
        barrier=build.barrier,
    )
    log.info(
        "%s data: %s documents, %s tokens, %s samples of %d tokens, epochs: %d (%s)",
        name, f"{len(documents):,}", f"{num_tokens:,}", f"{len(arrays['shuffle_index']):,}", build.seq_length,
        epochs.count, prefix,
    )  # fmt: skip
    return PackedSamples(dataset, SampleOrder(**arrays), identity=identity)


def _too_short(
    build: _Build, name: str, prefix: str, dataset: IndexedDataset, documents: range, num_tokens: int
) -> str:
    found = (
        f"{prefix}: {name} data has {num_tokens} tokens in {len(documents)} of {len(dataset)} documents, "
        f"but one sample needs seq_length + 1 = {build.seq_length + 1}"
    )
    share = f", another split than '{build.data.split}'" if build.data.data_path else ""
    validation = ", or eval_interval: 0 (no validation)" if name == "valid" else ""
    return f"{found}; give more data, a smaller seq_length{share}{validation}"


def _cache_folder(data: DataConfig, prefix: str) -> Path:
    return Path(data.index_cache_path) if data.index_cache_path else Path(prefix).parent / "index_cache"
