"""Token datasets written: .bin, .idx and .json appear whole or not at all; the format is in `indexed`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from megatron.neox.data.indexed import (
    BLOCK_BYTES,
    DTYPE_OF_CODE,
    HEADER,
    MAGIC,
    VERSION,
    IndexedDataset,
    paths_of,
)
from megatron.neox.errors import DatasetError, OutputError

_CODE_OF_DTYPE = {dtype: code for code, dtype in DTYPE_OF_CODE.items()}


class IndexedDatasetWriter:
    """Writes PREFIX.bin, .idx and .json, which appear under these names when the `with` block ends well.

    Until then ids go to PREFIX.bin.partial, locked against a second run; an error or Ctrl-C removes it, and
    what a killed run left is written over.

    Args:
        metadata: content of PREFIX.json; may be set any time before the block ends.
        overwrite: replace a dataset that stands under the prefix.

    Raises:
        OutputError: the dataset exists, or another run is writing it.
        DatasetError: an id does not fit `dtype`, a document has 2**31 tokens or more.
        OSError: the disk is full, with the file's name.
    """

    def __init__(
        self,
        prefix: str | Path,
        dtype: np.dtype[Any] | type,
        *,
        metadata: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.prefix = str(prefix)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        if self.dtype not in _CODE_OF_DTYPE:
            raise DatasetError(f"{self.prefix}: ids of type {self.dtype} cannot be written")
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.num_tokens = 0
        self._overwrite = overwrite
        self._sizes = array("i")
        self._borders = array("q", [0])
        self._bin_path, self._idx_path, self._json_path = paths_of(prefix)
        self._limits = np.iinfo(self.dtype)

    @property
    def num_documents(self) -> int:
        """Documents written so far."""
        return len(self._borders) - 1

    def __enter__(self) -> IndexedDatasetWriter:
        refuse_existing(self.prefix, overwrite=self._overwrite)
        try:
            self._bin_path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(_partial(self._bin_path))
        except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as error:
            raise OutputError(
                f"cannot write {self._bin_path}: {error.strerror}: {error.filename}; "
                "give another --output-prefix"
            ) from error
        return self

    def add(self, ids: Sequence[int] | np.ndarray) -> None:
        """Append one document."""
        self.add_many(np.asarray(ids, dtype=np.int64), [len(ids)])

    def add_many(self, ids: np.ndarray, sizes: Sequence[int] | np.ndarray) -> None:
        """Append documents whose ids lie end to end, `sizes[i]` tokens each."""
        if int(np.sum(sizes, dtype=np.int64)) != len(ids):
            raise DatasetError(f"{self.prefix}: the documents' sizes do not add up to {len(ids)} tokens")
        self._check_ids(ids)
        self._add_sizes(sizes)
        self._write(ids.astype(self.dtype, copy=False))

    def add_file(self, path: Path, sizes: np.ndarray) -> None:
        """Append documents whose ids lie end to end in a file, of the dataset's own type, `sizes[i]` tokens each.

        Raises:
            DatasetError: the file is longer or shorter than the sizes say.
        """
        expected = int(np.sum(sizes, dtype=np.int64)) * self.dtype.itemsize
        if path.stat().st_size != expected:
            raise DatasetError(
                f"{path} has {path.stat().st_size} bytes, {expected} are needed; make it again with --overwrite"
            )
        self._add_sizes(sizes)
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                self._write_bytes(block)

    def _add_sizes(self, sizes: Sequence[int] | np.ndarray) -> None:
        first = len(self._sizes)
        try:
            self._sizes.extend(int(size) for size in sizes)
        except OverflowError as error:
            raise DatasetError(f"{self.prefix}: a document has 2**31 tokens or more; divide it") from error
        self._borders.extend(range(first + 1, len(self._sizes) + 1))
        self.num_tokens += int(np.sum(sizes, dtype=np.int64))

    def _check_ids(self, ids: np.ndarray) -> None:
        if len(ids) and ids.dtype != self.dtype:
            lowest, highest = int(ids.min()), int(ids.max())
            if lowest < self._limits.min or highest > self._limits.max:
                raise DatasetError(
                    f"{self.prefix}: ids from {lowest} to {highest} do not fit {self.dtype}; "
                    "the type follows from the size of the vocabulary"
                )

    def merge(self, prefix: str | Path) -> None:
        """Append all of another dataset of the same id type, document borders kept.

        Raises:
            DatasetError: the other dataset is damaged, or its ids are of another type.
        """
        other = IndexedDataset(prefix)
        if other.dtype != self.dtype:
            raise DatasetError(
                f"{prefix} has ids of {other.dtype}, {self.prefix} of {self.dtype}; they cannot be merged"
            )
        first = len(self._sizes)
        self._sizes.frombytes(np.ascontiguousarray(other.sizes).tobytes())
        self._borders.extend((other.document_index[1:] + first).tolist())
        for block in other.blocks():
            self._write(block)
        self.num_tokens += other.num_tokens

    def _write(self, ids: np.ndarray) -> None:
        self._write_bytes(ids.tobytes())

    def _write_bytes(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            error.filename = error.filename or str(self._bin_path)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            # Closing flushes, which a full disk refuses again; what counts was said before.
            with contextlib.suppress(OSError):
                self._file.close()
            for path in (self._bin_path, self._idx_path, self._json_path):
                _partial(path).unlink(missing_ok=True)

    def _publish(self) -> None:
        refuse_existing(self.prefix, overwrite=self._overwrite)
        _flush(self._file, self._bin_path)
        with open(_partial(self._idx_path), "wb") as file:
            self._write_index(file)
            _flush(file, self._idx_path)
        with open(_partial(self._json_path), "w", encoding="utf-8") as file:
            counts = {
                "num_documents": self.num_documents,
                "num_tokens": self.num_tokens,
                "dtype": self.dtype.name,
            }
            json.dump(counts | self.metadata, file, indent=2)
            file.write("\n")
            _flush(file, self._json_path)
        # No moment may pair a new .bin with an old .idx.
        self._idx_path.unlink(missing_ok=True)
        for path in (self._bin_path, self._json_path, self._idx_path):
            os.replace(_partial(path), path)
        _flush_folder(self._bin_path.parent)

    def _write_index(self, file: BinaryIO) -> None:
        sizes = np.frombuffer(self._sizes, np.int32)
        pointers = np.zeros(len(sizes), "<i8")
        np.cumsum(sizes[:-1], dtype=np.int64, out=pointers[1:])
        pointers *= self.dtype.itemsize
        file.write(HEADER.pack(MAGIC, VERSION, _CODE_OF_DTYPE[self.dtype], len(sizes), len(self._borders)))
        file.write(sizes.astype("<i4", copy=False).tobytes())
        file.write(pointers.tobytes())
        file.write(np.frombuffer(self._borders, np.int64).astype("<i8", copy=False).tobytes())


def refuse_existing(prefix: str | Path, *, overwrite: bool) -> None:
    """Refuse to write where a dataset stands.

    Raises:
        OutputError: there is one, and it is not to be replaced.
    """
    existing = [str(path) for path in paths_of(prefix)[:2] if path.exists()]
    if existing and not overwrite:
        raise OutputError(
            f"{' and '.join(existing)} exist already; give another --output-prefix, "
            "or --overwrite to replace them"
        )


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _open_locked(path: Path) -> BinaryIO:
    """A new file that no other run writes; the lock ends with the process, so a killed run holds nothing."""
    file = open(path, "ab")  # noqa: SIM115 - closed by the writer's __exit__
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The run that held the lock may have renamed this very file to its final name meanwhile.
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            raise FileNotFoundError(path)
    except (BlockingIOError, FileNotFoundError) as error:
        file.close()
        raise OutputError(
            f"another run is writing {path}; wait for it, or give another --output-prefix"
        ) from error
    with contextlib.suppress(OSError):  # a device such as /dev/full has no length
        file.truncate(0)
    return file


def _flush(file: Any, path: Path) -> None:
    """Write through to the disk; an error carries the final name, which the user knows."""
    try:
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)
        raise


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
