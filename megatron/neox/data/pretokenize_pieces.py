"""The texts of a parquet file as one line of characters, cut into pieces, read a few rows at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron.neox.corpus.parquet_files import batches_of, open_parquet
from megatron.neox.corpus.readers.text_column import holds_text, plain
from megatron.neox.errors import InputError, did_you_mean

Piece = list[str]
"""Parts of documents; one character, the separator, stands between each two of them."""


@dataclass
class Reading:
    """What was met on the way; `num_characters` is where the reading stopped or the file ended."""

    num_rows: int = 0
    num_characters: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def read_pieces(
    path: Path, *, column: str, start: int, stop: int, size: int, reading: Reading
) -> Iterator[Piece]:
    """Pieces of `size` characters, the last one shorter, of characters `start` to `stop`.

    The line is every document of `column` with one separator between each two. Rows without a text are left
    out and counted, as `null`; so are those whose bytes are no UTF-8, as `not_utf8`.

    Raises:
        InputError: the file is absent, not parquet or damaged, or the column is absent, not text, or empty.
    """
    piece: Piece = [""]
    room = size
    at = -1  # the separator before the next document; the first document has none
    for texts, num_characters in _texts(path, column, reading):
        is_before = at + num_characters < start
        at += num_characters if is_before else 0
        for text in () if is_before else texts():
            if start <= at < stop:
                if not room:
                    yield piece
                    piece, room = [""], size
                piece.append("")
                room -= 1
            first = at + 1
            at = first + len(text)
            text = text[max(start - first, 0) : max(stop - first, 0)]
            while text:
                if not room:
                    yield piece
                    piece, room = [""], size
                part, text = text[:room], text[room:]
                piece[-1] += part
                room -= len(part)
        if at >= stop:
            break
    reading.num_characters = min(max(at, 0), stop)
    if room < size:
        yield piece


def _texts(path: Path, column: str, reading: Reading) -> Iterator[tuple[Any, int]]:
    """For some rows at a time: a function that gives their texts, and their characters with one more each."""
    from pyarrow import compute

    if not path.exists():
        raise InputError(f"the data file {path} does not exist (looked for {path.absolute()})")
    with open_parquet(path) as file:
        _check_column(file.schema_arrow, column, path)
        if not file.metadata.num_rows:
            raise InputError(f"{path} has no rows: there is nothing to tokenize")
        for batch in batches_of(file, [column]):
            cells = plain(batch.column(0))
            reading.num_rows += len(cells)
            texts = _valid_texts(cells, reading)
            if texts is not None:
                yield (lambda texts=texts: texts), sum(map(len, texts)) + len(texts)
                continue
            cells = cells.drop_null()
            lengths = compute.call_function("utf8_length", [cells])
            num_characters = compute.call_function("sum", [lengths]).as_py() or 0
            yield cells.to_pylist, num_characters + len(cells)


def _valid_texts(cells: Any, reading: Reading) -> list[str] | None:
    """The texts where some are no UTF-8, one by one; None where all are."""
    import pyarrow

    reading.skipped["null"] += cells.null_count
    try:
        cells.validate(full=True)
    except pyarrow.ArrowInvalid:
        texts = []
        for cell in cells.drop_null():
            try:
                texts.append(cell.as_buffer().to_pybytes().decode())
            except UnicodeDecodeError:
                reading.skipped["not_utf8"] += 1
        return texts
    return None


def _check_column(schema: Any, column: str, path: Path) -> None:
    if column not in schema.names:
        raise InputError(
            f"{path} has no column {column}{did_you_mean(column, schema.names)}; "
            f"--column takes one of: {', '.join(schema.names)}"
        )
    kind = schema.field(column).type
    if not holds_text(kind):
        raise InputError(f"{path}: the column {column} holds {kind}, not text; --column names another")
