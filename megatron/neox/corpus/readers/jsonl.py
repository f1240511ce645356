"""JSON lines, plain or compressed: one record a line, its text under a key."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.errors import InputError
from megatron.neox.plugins import readers

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PACKED_BYTES = 64 << 10  # read at once; what comes out of them is in memory


@readers.register("jsonl")
def read_jsonl(path: Path, tally: Tally, *, key: str = "text") -> Iterator[Document]:
    """The text under `key` of each line is a document; .gz and .zst are unpacked as they are read.

    Left out, counted: blank_line, no_text (the key absent or null), not_utf8 (a lone surrogate).

    Raises:
        InputError: a line (named) is no JSON object, its value is not text, or the archive is damaged.
    """
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                tally.skip("blank_line")
                continue
            text = _text(line, key, f"{path}:{number}")
            if text is None:
                tally.skip("no_text")
                continue
            try:
                yield Document(f"{path}:{number}", text.encode(), is_file=False)
            except UnicodeEncodeError:
                tally.skip("not_utf8")


def _text(line: bytes, key: str, place: str) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON: {error}; a .jsonl file has one object a line") from error
    if not isinstance(record, dict):
        raise InputError(f'{place}: a record is an object such as {{"{key}": ...}}, this is {line[:60]!r}')
    text = record.get(key)
    if text is not None and not isinstance(text, str):
        raise InputError(
            f"{place}: {key} holds {type(text).__name__}, not text; --jsonl-keys names the keys to tokenize "
            f"(this record has: {', '.join(map(str, record))})"
        )
    return text


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
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
    except PermissionError as error:
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
