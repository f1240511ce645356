"""Folders of fixed-length samples, dump-0.pkl and so on, and the dataset that reads them into memory.

A pickle can name any function to be called while it is read; here it may hold lists of numbers and nothing else.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from megatron.neox.data.pretokenize_folder import METADATA_NAME
from megatron.neox.errors import DatasetError

_ENDINGS = (".pkl", ".npy")


@dataclass(frozen=True)
class Dump:
    """A file of samples, and what the metadata says of it."""

    path: Path
    num_samples: int
    num_tokens: int


@dataclass(frozen=True)
class DumpFolder:
    """The dumps of a folder in the order of their numbers, and the file that tells of them."""

    metadata: Path
    dumps: list[Dump]


def find_dumps(folder: Path) -> DumpFolder:
    """Look into a folder of samples.

    Raises:
        DatasetError: there is no such folder, it has no metadata, no dumps, or a dump that the metadata lacks.
    """
    try:
        names = sorted(os.listdir(folder), key=_by_numbers)
    except OSError as error:
        raise DatasetError(f"cannot read the folder {folder}: {error.strerror}; {_REMEDY}") from error
    found = [name for name in names if name.endswith(_ENDINGS)]
    metadata, entries = _read_metadata(folder, names)
    if not found:
        raise DatasetError(f"{folder} holds no dump-N.pkl and no dump-N.npy; {_REMEDY}")
    if unknown := [name for name in found if name not in entries]:
        raise DatasetError(f"{metadata} has no entry for {', '.join(unknown)}; {_REMEDY}")
    if absent := [name for name in entries if name not in found]:
        raise DatasetError(f"{metadata} tells of {', '.join(absent)}, which {folder} lacks; {_REMEDY}")
    return DumpFolder(metadata, [_dump(folder / name, entries[name], metadata) for name in found])


_REMEDY = "make the folder with tools/tokenize_data.py, or copy all of its files"


def is_dump_folder(path: str) -> bool:
    """Whether samples of fixed length lie there, and not the .idx of a dataset of that prefix."""
    return Path(path).is_dir() and not Path(f"{path}.idx").exists()


def _by_numbers(name: str) -> list[Any]:
    """dump-2 before dump-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _read_metadata(folder: Path, names: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """The file and what it says; of several .json, the one that is named as it should be."""
    found = [name for name in names if name.endswith(".json")]
    if not found or (len(found) > 1 and METADATA_NAME not in found):
        what = f"{len(found)} files .json, none of them {METADATA_NAME}" if found else f"no {METADATA_NAME}"
        raise DatasetError(f"{folder} has {what}; {_REMEDY}")
    path = folder / (METADATA_NAME if METADATA_NAME in found else found[0])
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, dict):
            raise ValueError("it holds no mapping")
    except ValueError as error:
        raise DatasetError(f"{path} is damaged ({error}); {_REMEDY}") from error
    return path, entries


def _dump(path: Path, entry: Any, metadata: Path) -> Dump:
    try:
        return Dump(path, int(entry["num_samples"]), int(entry["num_tokens"]))
    except (TypeError, KeyError, ValueError) as error:
        raise DatasetError(
            f"{metadata}: the entry of {path.name} has no num_samples and num_tokens; {_REMEDY}"
        ) from error


def read_dump(dump: Dump) -> np.ndarray:
    """The samples of a file, `[n, s]`: int32 of a pickle, a memory map of an array.

    Raises:
        DatasetError: it is damaged, holds something else than lists of ids, or not what the metadata says.
    """
    samples = _read_array(dump.path) if dump.path.name.endswith(".npy") else _read_pickle(dump.path)
    if (len(samples), samples.size) != (dump.num_samples, dump.num_tokens):
        raise DatasetError(
            f"{dump.path} holds {len(samples)} samples of {samples.size} ids in all, but the metadata says "
            f"{dump.num_samples} of {dump.num_tokens}; {_REMEDY}"
        )
    return samples


def _read_array(path: Path) -> np.ndarray:
    try:
        samples = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path} is damaged ({error}); {_REMEDY}") from error
    if samples.ndim != 2 or samples.dtype.kind not in "iu":
        raise DatasetError(f"{path} holds {samples.dtype} {list(samples.shape)}, not ids [n, s]; {_REMEDY}")
    return samples


class _PlainUnpickler(pickle.Unpickler):
    """Lists and numbers; whatever would call something is refused before it does."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Refuse, naming what was asked for."""
        raise DatasetError(
            f"{self._path} asks for {module}.{name}, which may run anything: it is no list of samples, and is not read"
        )

    def persistent_load(self, pid: Any) -> Any:
        """Refuse."""
        raise DatasetError(f"{self._path} refers to objects outside ({pid!r}): it is no list of samples")


def _read_pickle(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            rows = _PlainUnpickler(file, path).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, OSError) as error:
        raise DatasetError(f"{path} is damaged ({error or 'cut short'}); {_REMEDY}") from error
    except (AttributeError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is damaged ({type(error).__name__}); {_REMEDY}") from error
    if type(rows) is not list or not all(type(row) is list for row in rows):
        raise DatasetError(f"{path} holds {type(rows).__name__}, not a list of lists of ids; {_REMEDY}")
    if any(set(map(type, row)) - {int} for row in rows):
        raise DatasetError(f"{path} holds samples of something else than ids; {_REMEDY}")
    if len(lengths := sorted(set(map(len, rows)))) > 1:
        raise DatasetError(f"{path} holds samples of {lengths[0]} and of {lengths[-1]} ids; {_REMEDY}")
    try:
        return np.array(rows, np.int32).reshape(len(rows), lengths[0] if lengths else 0)
    except OverflowError as error:
        raise DatasetError(f"{path} holds ids beyond 2**31; {_REMEDY}") from error


class PickledTrainerDataset(Dataset[dict[str, torch.Tensor]]):
    """All samples of several folders, in the order of the folders and of the numbers of their dumps.

    `dataset[i]` is `{"input_ids": [s], "labels": [s]}`, one and the same int64 tensor twice: a model that shifts its
    labels itself, as those of transformers do, takes it as it is. Prints what it finds, as its namesake does.

    Attributes:
        total_samples, total_tokens: as the metadata counts them, padding included.

    Raises (when built):
        DatasetError: a folder or file is absent, damaged, or unlike the others.
    """

    def __init__(self, target_folders: Sequence[str | Path]) -> None:
        folders = [Path(folder) for folder in target_folders]
        dumps = [
            dump
            for folder in tqdm(folders, desc="Finding files", disable=None)
            for dump in _announced(folder)
        ]
        kinds = sorted({dump.path.suffix[1:] for dump in dumps})
        tqdm.write(
            f"Checked {len(folders)} folders and found {len(dumps)} files with extension: {', '.join(kinds)}"
        )
        self.total_samples = sum(dump.num_samples for dump in dumps)
        self.total_tokens = sum(dump.num_tokens for dump in dumps)
        tqdm.write(f"Total samples: {self.total_samples}\nTotal tokens: {self.total_tokens}")
        self._parts = [_loaded(dump) for dump in tqdm(dumps, desc="Loading tokenized data", disable=None)]
        lengths = {part.shape[1]: dump.path for part, dump in zip(self._parts, dumps) if len(part)}
        if len(lengths) > 1:
            found = ", ".join(f"{path} of {length}" for length, path in lengths.items())
            raise DatasetError(f"samples of several lengths cannot be one dataset: {found} ids")
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return self.total_samples

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        part = int(np.searchsorted(self._ends, index, side="right"))
        sample = self._parts[part][index - int(self._ends[part])]  # counted from the part's end
        ids = torch.from_numpy(sample.astype(np.int64))
        return {"input_ids": ids, "labels": ids}


def _announced(folder: Path) -> list[Dump]:
    tqdm.write(f"Checking folder: {folder}")
    found = find_dumps(folder)
    tqdm.write(f"Found meta file: {found.metadata}")
    return found.dumps


def _loaded(dump: Dump) -> np.ndarray:
    samples = read_dump(dump)
    tqdm.write(f"Loaded {len(samples)} vectors from {dump.path}")
    return samples
