"""Where streamed documents come from: files here, or a dataset of the Hugging Face hub; read on from any place.

A place is JSON: what `state_dict` of the library `datasets` gives, or `[file, document]` of files here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.readers import reader_name
from megatron.neox.corpus.texts import usable_texts
from megatron.neox.errors import DatasetError, InputError, did_you_mean
from megatron.neox.plugins import readers

SCHEME = "stream:"
IDS_COLUMN = "input_ids"
"""The column of documents that are ids already."""

_BUFFER_BYTES = 1 << 20  # a file of one row group would be read whole otherwise
_HUB = "hf://datasets/"

Content = str | list[int]
"""A document: its text, or its ids."""


class Source(Protocol):
    """Documents, in an order that is always the same."""

    identity: dict[str, Any]
    """All that the order depends on, as far as it can be known."""

    def read(self, place: Any) -> Iterator[tuple[Any, Content]]:
        """Documents from a place on (None: the first) to the last, each with its own place."""
        ...


def is_stream(path: str) -> bool:
    """Whether a data path is read as a stream."""
    return path.startswith(SCHEME)


def open_source(path: str, column: str) -> Source:
    """The source that `stream:PATH` names.

    Raises:
        InputError: there is nothing there that can be read.
        DatasetError: its files have no such column.
    """
    name = path.removeprefix(SCHEME)
    return HubSource(name, column) if name.startswith(_HUB) else FileSource(Path(name), column)


class FileSource:
    """Parquet and JSON lines files: one, or all below a folder in the order of their names."""

    def __init__(self, path: Path, column: str) -> None:
        found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        self.files = [file for file in found if reader_name(file) in ("parquet", "jsonl")]
        if not self.files:
            what = "no .parquet and no .jsonl file" if path.exists() else "nothing"
            raise InputError(f"{SCHEME}{path}: there is {what} (looked at {path.absolute()})")
        self.column = column
        for file in self.files:
            if reader_name(file) == "parquet":
                _check_column(file, column)
        names = [str(file.relative_to(path)) if file != path else file.name for file in self.files]
        sizes = [file.stat().st_size for file in self.files]
        self.identity = {"files": list(map(list, zip(names, sizes, strict=True))), "column": column}

    def read(self, place: Any) -> Iterator[tuple[Any, Content]]:
        """A place is `[file, document]`, both counted from 0; a file is read from its start to the document."""
        first, skipped = place or (0, 0)
        for number in range(first, len(self.files)):
            documents = enumerate(self._documents(self.files[number]))
            for index, content in itertools.islice(documents, skipped, None):
                yield [number, index], content
            skipped = 0

    def _documents(self, file: Path) -> Iterator[Content]:
        kind = reader_name(file)
        if self.column == IDS_COLUMN and kind == "parquet":
            yield from _ids(file)
            return
        tally = Tally()
        documents = readers.build(kind, file, tally, key=self.column, column=self.column)
        yield from usable_texts(documents, tally)


def _check_column(file: Path, column: str) -> None:
    import pyarrow
    from pyarrow import parquet

    try:
        names = parquet.read_schema(file).names
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{file} is not a readable parquet file: {error}; fetch or write it again"
        ) from error
    if column not in names:
        raise DatasetError(
            f"{file} has no column {column}{did_you_mean(column, names)}; stream_column takes one of: "
            f"{', '.join(names)}"
        )


def _ids(file: Path) -> Iterator[list[int]]:
    from pyarrow import parquet

    with parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as opened:
        for batch in opened.iter_batches(batch_size=64, columns=[IDS_COLUMN]):
            for cell in batch.column(0):
                if cell.is_valid:
                    yield cell.as_py()


class HubSource:
    """A dataset of the hub, `hf://datasets/NAME[@REVISION][/FOLDER]`, its split `train`, read as it arrives."""

    def __init__(self, name: str, column: str) -> None:
        owner, _, rest = name.removeprefix(_HUB).partition("/")
        repository, _, folder = rest.partition("/")
        repository, _, revision = repository.partition("@")
        self.name, self.revision, self.folder = f"{owner}/{repository}", revision or None, folder or None
        self.column = column
        self.identity = {"hub": self.name, "revision": revision, "folder": folder, "column": column}

    def read(self, place: Any) -> Iterator[tuple[Any, Content]]:
        """A place is what the library gives before it reads the document."""
        dataset = self._dataset()
        if place is not None:
            dataset.load_state_dict(place)
        records = iter(dataset)
        while True:
            before = dataset.state_dict()
            record = next(records, None)
            if record is None:
                return
            if self.column not in record:
                raise DatasetError(
                    f"{_HUB}{self.name} has no column {self.column}{did_you_mean(self.column, record)}; stream_column "
                    f"takes one of: {', '.join(record)}"
                )
            if record[self.column] is not None:
                yield before, record[self.column]

    def _dataset(self) -> Any:
        import datasets

        try:
            return datasets.load_dataset(
                self.name, data_dir=self.folder, revision=self.revision, split="train", streaming=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(
                f"{_HUB}{self.name} cannot be streamed: {reason}; of a gated dataset, accept the terms on its "
                "page, then set HF_TOKEN or log in: hf auth login"
            ) from error
