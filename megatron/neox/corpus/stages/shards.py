"""Shards: parquet files of source files, a row each. What the stages of a corpus read and write.

`content` is the text as it will be tokenized: UTF-8 without a byte order mark, line ends LF. `sha256` and `size`
are those of the file's own bytes, so that an index made from shards says what PolyCoder's says. Equal rows give
equal bytes.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from megatron.neox.corpus.parquet_files import batches_of, open_parquet
from megatron.neox.errors import InputError
from megatron.neox.files import appearing
from megatron.neox.imports import absent

if TYPE_CHECKING:
    import pyarrow

_ROW_GROUP_BYTES = 4 << 20  # of content: what a writer holds, and a reader of whole groups
_TEXTS_AT_ONCE = 256  # with a row group of 4 MiB as the bound
_NAMES_AT_ONCE = 1 << 14
_REQUIRED = frozenset({"repository", "language", "path", "sha256", "size", "content"})
_IMPORT = "tools/collect/import_dataset.py makes shards of other parquet and jsonl files"
# Columns whose values come again and again; of others a dictionary costs a third of the writing, and gains nothing.
_REPEATED: Any = ["repository", "language", "stars", "licenses.list.element", "commit"]
_ESCAPE = re.compile(rb"[\x00-\x1f\x7f\\]")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


class SourceFile(NamedTuple):
    """A row of a shard."""

    repository: str
    """ORGANIZATION/PROJECT."""
    language: str
    path: str
    """Below the repository, as `escape_path` writes it."""
    sha256: str
    """Of the file's own bytes, in hex."""
    size: int
    """Of the file's own bytes."""
    stars: int | None
    """None where the repository did not come from a crawl."""
    licenses: list[str]
    """SPDX identifiers, as far as known."""
    commit: str | None
    vendored: bool
    """Whether it lies in a folder of other people's packages, such as node_modules."""
    content: str


def schema() -> pyarrow.Schema:
    """The columns of a shard, in their order."""
    import pyarrow as pa

    _spare_pandas()
    return pa.schema(
        {
            "repository": pa.string(), "language": pa.string(), "path": pa.string(), "sha256": pa.string(),
            "size": pa.int64(), "stars": pa.int32(), "licenses": pa.list_(pa.string()), "commit": pa.string(),
            "vendored": pa.bool_(), "content": pa.string(),
        }
    )  # fmt: skip


@cache
def _spare_pandas() -> None:
    """Let pyarrow not find pandas when it looks, which it does once, for the first list that becomes a column.

    Importing it takes a third of a second and 40 MB in each process, to learn that the list is none of its series.
    What needs pandas, `to_pandas` say, imports it all the same.
    """
    import pyarrow as pa

    with absent("pandas"):
        pa.array([])


def escape_path(path: bytes) -> str:
    r"""A path as text: bytes that are not UTF-8, control characters and backslashes become `\xNN`.

    Two paths never give the same text, and the text stands on one line without a tab.
    """
    escaped = _ESCAPE.sub(lambda match: b"\\x%02x" % match[0][0], path)
    return escaped.decode("utf-8", "backslashreplace")


def unescape_path(text: str) -> bytes:
    """The path that `escape_path` was given."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode())


class ShardWriter:
    """Writes rows to one parquet file, in row groups of bounded size."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._schema = schema()
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=_REPEATED)
        self._rows: list[SourceFile] = []  # without their texts
        self._texts = _Texts()
        self._batches: list[pyarrow.RecordBatch] = []  # they come before the rows
        self._num_bytes = 0

    def write(self, file: SourceFile) -> None:
        """Add a row."""
        self._rows.append(file._replace(content=""))
        self._num_bytes += self._texts.append(file.content)
        if self._num_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def write_batch(self, batch: pyarrow.RecordBatch) -> None:
        """Add rows that are arrow data already."""
        self._gather_rows()
        self._batches.append(batch)
        self._num_bytes += batch.nbytes
        if self._num_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Let go of a file that nobody will read."""
        with suppress(Exception):  # on a full disk this fails again, and must not hide why
            self._writer.close()

    def _gather_rows(self) -> None:
        import pyarrow as pa

        if self._rows:
            *columns, _ = ([*column] for column in zip(*self._rows))
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema)]
            self._batches.append(pa.record_batch([*arrays, self._texts.to_arrow()], schema=self._schema))
            self._rows, self._texts = [], _Texts()

    def _flush(self) -> None:
        import pyarrow as pa

        self._gather_rows()
        if any(batch.num_rows for batch in self._batches):
            table = pa.Table.from_batches(self._batches)  # which copies none of them
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._batches, self._num_bytes = [], 0
        pa.default_memory_pool().release_unused()  # or what is kept grows with the number of row groups


class _Texts:
    """A column of texts as it grows.

    Texts that wait as such for `pyarrow.array` are there twice in the end, those beyond Latin up to five times; and
    it doubles its memory as they come.
    """

    def __init__(self) -> None:
        self._data, self._ends = bytearray(), array("i", [0])

    def append(self, text: str) -> int:
        """Add a text; return its bytes."""
        self._data += text.encode()
        self._ends.append(len(self._data))
        return self._ends[-1] - self._ends[-2]

    def to_arrow(self) -> pyarrow.Array:
        """As `pyarrow.array` gives it; the texts are not copied."""
        import pyarrow as pa

        return pa.StringArray.from_buffers(
            len(self._ends) - 1, pa.py_buffer(self._ends), pa.py_buffer(self._data)
        )


@contextmanager
def new_shard(path: Path) -> Iterator[ShardWriter]:
    """A writer whose file takes its name when the block ends well."""
    with appearing(path) as partial:
        writer = ShardWriter(partial)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        writer.close()


def find_shards(folder: Path) -> list[Path]:
    """The shards of a stage's finished output, in order.

    Raises:
        InputError: there is no such folder, the stage that writes it is not done, or it holds no shard.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of shards")
    if (folder / ".stage").exists() and not (folder / "summary.json").exists():
        raise InputError(f"{folder} is not finished; the command that writes it goes on with --resume")
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        raise InputError(f"{folder} holds no .parquet file; tools/collect/extract_code.py makes some")
    return shards


def read_batches(shard: Path, columns: Sequence[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """Rows of a shard as arrow data, about a mebibyte at once, in the types of `schema`.

    Raises:
        InputError: not a parquet file, damaged, without a column that is asked for, or with other values in it.
    """
    wanted = list(schema().names if columns is None else columns)
    with open_parquet(shard) as file:
        if absent := [name for name in wanted if name not in file.schema_arrow.names]:
            raise InputError(
                f"{shard} has no column {', '.join(absent)}: it is not a shard of ours; {_IMPORT}"
            )
        num_rows = _TEXTS_AT_ONCE if "content" in wanted else _NAMES_AT_ONCE
        for batch in batches_of(file, wanted, num_rows=num_rows):
            yield _in_our_types(batch, shard)


def holds_rows(shard: Path) -> bool:
    """Whether a shard has a row, which its end tells.

    Raises:
        InputError: not a parquet file, or damaged.
    """
    with open_parquet(shard) as file:
        return file.metadata.num_rows > 0


def _in_our_types(batch: pyarrow.RecordBatch, shard: Path) -> pyarrow.RecordBatch:
    """The rows as our own writer gives them; others' parquet may have our names and other types."""
    import pyarrow as pa

    wanted = pa.schema([schema().field(name) for name in batch.schema.names])
    try:
        batch = batch.cast(wanted)
        batch.validate(full=True)  # that texts are UTF-8
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{shard} is not a shard of ours: {error}; {_IMPORT}") from error
    for name in _REQUIRED.intersection(batch.schema.names):
        if batch.column(name).null_count:
            raise InputError(f"{shard} is not a shard of ours: a row has no {name}; {_IMPORT}")
    return batch


def read_shard(shard: Path) -> Iterator[SourceFile]:
    """Rows of a shard.

    Raises:
        InputError: as `read_batches`.
    """
    for batch in read_batches(shard):
        columns: list[list[Any]] = [column.to_pylist() for column in batch.columns]
        yield from map(SourceFile._make, zip(*columns))


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.parquet"
