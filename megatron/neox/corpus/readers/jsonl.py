"""JSON lines, plain or compressed: one record a line, its text under a key."""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.errors import InputError
from megatron.neox.plugins import readers

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PART_BYTES = 64 << 20
_PACKED_BYTES = 2 << 10  # read at once; what comes out of them, 64 MiB at most, is in memory
_LINE_BYTES = 256 << 20  # of the longest line, which is in memory, too


def jsonl_parts(path: Path) -> Iterator[list[int] | None]:
    """Spans of whole lines, the first byte and the one behind the last; a compressed file is one piece."""
    if path.name.lower().endswith((".gz", ".zst")):
        yield None
        return
    with open_lines(path) as lines:
        size, start = os.fstat(lines.fileno()).st_size, 0
        while start < size:
            end = min(start + _PART_BYTES, size) - 1
            lines.seek(end)
            next(lines_of(lines, path, before=end))
            yield [start, lines.tell()]
            start = lines.tell()


@readers.register("jsonl")
def read_jsonl(
    path: Path, tally: Tally, *, key: str = "text", part: Sequence[int] | None = None
) -> Iterator[Document]:
    """The text under `key` of each line is a document; .gz and .zst are unpacked as they are read.

    Left out, counted: blank_line, no_text (the key absent or null), not_utf8 (a lone surrogate).

    Args:
        part: bytes to read, the first and the one behind the last, lines being whole; none reads all.

    Raises:
        InputError: a line (named) is no JSON object or longer than 256 MiB, its value is not text, or the archive is
            damaged.
    """
    with open_lines(path) as lines:
        start, stop = part or (0, None)
        if start:
            lines.seek(start)
        for number, line in enumerate(lines_of(lines, path, before=start), start=1):
            if stop is not None and start >= stop:
                return
            if not line.strip():
                tally.skip("blank_line")
            elif (text := _text(line, key, path, number, before=part[0] if part else 0)) is None:
                tally.skip("no_text")
            else:
                try:
                    yield Document(f"{path}:{start if stop else number}", text.encode(), is_file=False)
                except UnicodeEncodeError:
                    tally.skip("not_utf8")
            if stop is not None:
                start += len(line)


def lines_of(lines: BinaryIO, path: Path, *, before: int = 0) -> Iterator[bytes]:
    """The lines of `open_lines(path)`, read on from the byte `before`, none of which may fill the memory.

    Raises:
        InputError: one is longer than 256 MiB; it is named.
    """
    number = 0
    while line := lines.readline(_LINE_BYTES + 1):
        number += 1
        if len(line) > _LINE_BYTES:
            raise InputError(
                f"{_place(path, number, before)}: a line of more than {_LINE_BYTES >> 20} MiB; a .jsonl file has one "
                "object a line: is it a file of another kind?"
            )
        yield line


def _text(line: bytes, key: str, path: Path, number: int, *, before: int) -> str | None:
    """The text of a record; `number` counts the lines behind the first `before` bytes of the file."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        place = _place(path, number, before)
        raise InputError(f"{place}: not JSON: {error}; a .jsonl file has one object a line") from error
    if not isinstance(record, dict):
        place = _place(path, number, before)
        raise InputError(f'{place}: a record is an object such as {{"{key}": ...}}, this is {line[:60]!r}')
    text = record.get(key)
    if text is not None and not isinstance(text, str):
        place = _place(path, number, before)
        raise InputError(
            f"{place}: {key} holds {type(text).__name__}, not text; --jsonl-keys names the keys to tokenize "
            f"(this record has: {', '.join(map(str, record))})"
        )
    return text


def _place(path: Path, number: int, before: int) -> str:
    """`path:line`; the lines of earlier pieces are counted only now that somebody wants to know."""
    with path.open("rb") as file:
        while before > 0 and (block := file.read(min(before, 1 << 20))):
            number += block.count(b"\n")
            before -= len(block)
    return f"{path}:{number}"


@contextmanager
def open_lines(path: Path) -> Iterator[BinaryIO]:
    """The file as lines of bytes.

    Raises:
        InputError: it cannot be opened, or its compressed stream is damaged, which shows while it is read.
    """
    try:
        with path.open("rb") as raw:
            if path.name.lower().endswith(".gz"):
                yield cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            elif path.name.lower().endswith(".zst"):
                yield cast(BinaryIO, io.BufferedReader(_ZstdFile(raw)))
            else:
                yield cast(BinaryIO, raw)
    except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged or cut short: {error}; fetch or write it again") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


class _ZstdFile(io.RawIOBase):
    """The unpacked frames of a .zst file.

    The library's own reader takes a frame that is cut short for the end of the file; this one raises EOFError.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._pieces = _unpack(raw)
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` and return how many bytes it took; 0 at the end."""
        while not len(self._piece):
            try:
                self._piece = memoryview(next(self._pieces))
            except StopIteration:
                return 0
        target = memoryview(buffer).cast("B")
        length = min(len(target), len(self._piece))
        target[:length] = self._piece[:length]
        self._piece = self._piece[length:]
        return length


def _unpack(raw: BinaryIO) -> Iterator[bytes]:
    frame = None
    while packed := raw.read(_PACKED_BYTES):
        while packed:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(packed)
            packed = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("the last frame is not complete")
