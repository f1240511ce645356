"""Token datasets of Megatron and GPT-NeoX: PREFIX.bin holds ids, PREFIX.idx where each document lies.

::

    PREFIX.bin   ids of all documents end to end, no header
    PREFIX.idx   magic "MMIDIDX" NUL NUL | version uint64 = 1 | dtype code uint8
                 | number of sequences n uint64 | number of borders d uint64
                 | sizes int32 [n] | byte offsets int64 [n] | borders int64 [d]
    PREFIX.json  how it was made (ours; other readers ignore it)

Little endian throughout. The .idx appears last, so a dataset with an .idx is complete.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from megatron.neox.errors import DatasetError

log = logging.getLogger(__name__)

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")

# Codes 6 and 7 are floats, which Megatron and GPT-NeoX number differently; no token dataset has them.
DTYPE_OF_CODE: dict[int, np.dtype[Any]] = {
    code: np.dtype(name)
    for code, name in ((1, "<u1"), (2, "<i1"), (3, "<i2"), (4, "<i4"), (5, "<i8"), (8, "<u2"))
}

_UINT16_VOCABULARIES = 65500  # GPT-NeoX's bound, some way below 2 ** 16
BLOCK_BYTES = 16 << 20  # what is read or copied at a time


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Type of the ids: uint16 below 65,500, else int32."""
    return np.dtype("<u2") if vocab_size < _UINT16_VOCABULARIES else np.dtype("<i4")


def paths_of(prefix: str | Path) -> tuple[Path, Path, Path]:
    """The .bin, .idx and .json of a prefix."""
    return Path(f"{prefix}.bin"), Path(f"{prefix}.idx"), Path(f"{prefix}.json")


class IndexedDataset:
    """A dataset read through memory maps: opening it costs the same whatever its size.

    Attributes:
        sizes: tokens of each sequence, int32 `[n]`.
        document_index: sequence at which each document begins, then n, int64 `[d]`.

    Raises:
        DatasetError: a file is absent, cut short, or no dataset; sizes found and expected are named.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        bin_path, idx_path, _ = paths_of(prefix)
        index = _map_file(idx_path)
        self.dtype, num_sequences, num_borders = _read_header(index, idx_path)
        offset = HEADER.size
        self.sizes: np.ndarray = index[offset : offset + 4 * num_sequences].view("<i4")
        offset += 4 * num_sequences
        self._pointers: np.ndarray = index[offset : offset + 8 * num_sequences].view("<i8")
        offset += 8 * num_sequences
        self.document_index: np.ndarray = index[offset : offset + 8 * num_borders].view("<i8")
        self._check_bin(bin_path, idx_path)
        self._tokens = _map_file(bin_path)

    def _check_bin(self, bin_path: Path, idx_path: Path) -> None:
        expected = 0
        if len(self.sizes):
            expected = int(self._pointers[-1]) + int(self.sizes[-1]) * self.dtype.itemsize
        try:
            found = bin_path.stat().st_size
        except OSError as error:
            raise DatasetError(f"cannot read {bin_path}: {error.strerror}; {_REMEDY}") from error
        if found < expected:
            raise DatasetError(
                f"{bin_path} is too short: it has {found:,} bytes, {idx_path} speaks of {expected:,}; "
                f"{_REMEDY}"
            )
        if found > expected:
            log.warning(
                "%s has %d bytes more than %s speaks of; they are left out",
                bin_path,
                found - expected,
                idx_path,
            )

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> np.ndarray:
        """Ids of one sequence, in the dataset's own type; a view of the map."""
        return self.read(index)

    def blocks(self) -> Iterator[np.ndarray]:
        """All ids in order, in blocks of bounded size; views of the map."""
        ends = np.cumsum(self.sizes, dtype=np.int64) * self.dtype.itemsize
        if len(ends) and np.array_equal(self._pointers[1:], ends[:-1]) and self._pointers[0] == 0:
            for start in range(0, int(ends[-1]), BLOCK_BYTES):
                yield self._tokens[start : min(start + BLOCK_BYTES, int(ends[-1]))].view(self.dtype)
        else:
            yield from map(self.read, range(len(self)))

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences."""
        return int(self.sizes.sum(dtype=np.int64))

    def read(self, index: int, offset: int = 0, length: int | None = None) -> np.ndarray:
        """`length` ids of a sequence from `offset` on, to its end where none is given.

        Raises:
            DatasetError: the index points outside the .bin: the .idx is damaged.
        """
        size = int(self.sizes[index])
        length = size - offset if length is None else length
        if not 0 <= offset <= offset + length <= size:
            raise IndexError(f"{length} tokens from {offset} on are not in sequence {index} of {size} tokens")
        itemsize = self.dtype.itemsize
        start = int(self._pointers[index]) + offset * itemsize
        stop = start + length * itemsize
        if start < 0 or stop > len(self._tokens):
            raise DatasetError(
                f"{self.prefix}.idx is damaged: sequence {index} would lie at bytes {start} to {stop} of "
                f"{len(self._tokens)}; {_REMEDY}"
            )
        return self._tokens[start:stop].view(self.dtype)


_REMEDY = "copy both files anew, or make them with tools/preprocess_data.py --overwrite"


def _map_file(path: Path) -> np.ndarray:
    """The bytes of a file as a read-only map, uint8 `[n]`; an empty file cannot be mapped and is empty."""
    try:
        if path.stat().st_size == 0:
            return np.empty(0, np.uint8)
        return np.asarray(np.memmap(path, np.uint8, mode="r"))
    except OSError as error:
        raise DatasetError(
            f"cannot read {path}: {error.strerror} (in full: {path.absolute()}); "
            "data paths are given without .bin or .idx, such as data/code_text_document"
        ) from error


def _read_header(index: np.ndarray, path: Path) -> tuple[np.dtype[Any], int, int]:
    """Type of the ids, number of sequences, number of document borders."""
    if len(index) < HEADER.size:
        raise DatasetError(
            f"{path} is cut short: it has {len(index)} bytes, its header alone {HEADER.size}; {_REMEDY}"
        )
    magic, version, code, num_sequences, num_borders = HEADER.unpack(index[: HEADER.size].tobytes())
    if magic != MAGIC:
        raise DatasetError(
            f"{path} is no .idx of a memory-mapped dataset: it begins with {magic!r}, not {MAGIC!r}; "
            "datasets of the kinds lazy and cached must be made anew with tools/preprocess_data.py"
        )
    if version != VERSION:
        raise DatasetError(f"{path} has version {version}, only {VERSION} is known; {_REMEDY}")
    if code not in DTYPE_OF_CODE:
        raise DatasetError(
            f"{path} has ids of type code {code}; known are {sorted(DTYPE_OF_CODE)}; {_REMEDY}"
        )
    expected = HEADER.size + 12 * num_sequences + 8 * num_borders
    if len(index) < expected:
        raise DatasetError(
            f"{path} is cut short: it has {len(index):,} bytes, {expected:,} are needed for "
            f"{num_sequences:,} sequences; {_REMEDY}"
        )
    return DTYPE_OF_CODE[code], num_sequences, num_borders
