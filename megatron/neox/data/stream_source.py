"""Where streamed documents come from: files here, or a dataset of the Hugging Face hub; read on from any place.

A place is JSON: what `state_dict` of the library `datasets` gives, or `[file, document]` of files here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.parquet_files import batches_of, open_parquet
from megatron.neox.corpus.readers import inputs_of, reader_name
from megatron.neox.corpus.texts import usable_texts
from megatron.neox.errors import DatasetError, InputError, did_you_mean
from megatron.neox.plugins import readers

SCHEME = "stream:"
IDS_COLUMN = "input_ids"
"""The column of documents that are ids already."""

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

    def name(self, place: Any) -> str:
        """What a person looks for to find the document of a place."""
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
        if path.is_dir():
            inputs_of(path)  # refuses what a stage is still writing
        found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        self.files = [file for file in found if reader_name(file) in ("parquet", "jsonl")]
        if not self.files:
            what = "no .parquet and no .jsonl file" if path.exists() else "nothing"
            raise InputError(f"{SCHEME}{path}: there is {what} (looked at {path.absolute()})")
        self.column = column
        for file in self.files:
            if reader_name(file) == "parquet":
                _check_column(file, column)
            elif column == IDS_COLUMN:
                raise InputError(f"{file}: documents that are ids already are read from parquet files alone")
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

    def name(self, place: Any) -> str:
        """The file, and the document's number among its documents."""
        number, document = place
        return f"{self.files[number]}: document {document + 1}"

    def _documents(self, file: Path) -> Iterator[Content]:
        kind = reader_name(file)
        if self.column == IDS_COLUMN:
            yield from _ids(file)
            return
        tally = Tally()
        documents = readers.build(kind, file, tally, key=self.column, column=self.column)
        yield from usable_texts(documents, tally)


def _check_column(file: Path, column: str) -> None:
    with open_parquet(file) as opened:
        names = opened.schema_arrow.names
    if column not in names:
        raise DatasetError(
            f"{file} has no column {column}{did_you_mean(column, names)}; stream_column takes one of: "
            f"{', '.join(names)}"
        )


def _ids(file: Path) -> Iterator[list[int]]:
    with open_parquet(file) as opened:
        for batch in batches_of(opened, [IDS_COLUMN]):
            for cell in batch.column(0):
                if cell.is_valid:
                    yield cell.as_py()


class HubSource:
    """A dataset of the hub, `hf://datasets/NAME[@REVISION][/FOLDER]`, its split `train`, read as it arrives."""

    def __init__(self, name: str, column: str) -> None:
        owner, _, rest = name.removeprefix(_HUB).partition("/")
        repository, _, folder = rest.partition("/")
        repository, _, revision = repository.partition("@")
        self.repository, self.revision, self.folder = (
            f"{owner}/{repository}",
            revision or None,
            folder or None,
        )
        self.column = column
        self.identity = {"hub": self.repository, "revision": revision, "folder": folder, "column": column}

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
                    f"{_HUB}{self.repository} has no column {self.column}{did_you_mean(self.column, record)}; "
                    f"stream_column takes one of: {', '.join(record)}"
                )
            if record[self.column] is not None:
                yield before, record[self.column]

    def name(self, place: Any) -> str:
        """The dataset: how far it was read is the library's to know."""
        return f"{_HUB}{self.repository}"

    def _dataset(self) -> Any:
        import datasets

        try:
            return datasets.load_dataset(
                self.repository, data_dir=self.folder, revision=self.revision, split="train", streaming=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(
                f"{_HUB}{self.repository} cannot be streamed: {reason}; of a gated dataset, accept the terms on its "
                "page, then set HF_TOKEN or log in: hf auth login"
            ) from error
