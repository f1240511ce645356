"""Index of a corpus: a line `{language}__{organization}__{project}__{path}<TAB>SHA256` for each of its files.

The form is PolyCoder's (README of Code-LMs' folder Data): slashes of the path are `__`, and the hash is of the bytes
as they lay on the disk. The file is plain, or inside a zip. It is read as a stream, a block at once, so that its size
does not matter: PolyCoder's names 24 million files.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from megatron.neox.corpus.stages.shards import unescape_path
from megatron.neox.errors import InputError

_BLOCK_BYTES = 4 << 20
_MOST_BYTES = 1 << 20  # of a line; paths have 4096 at most, four times as many escaped
_HEX = 64
_AMBIGUOUS = re.compile(r"_(?=_|$)")
_NEWLINE, _RETURN, _TAB = b"\n\r\t"

# Value of each hexadecimal digit, 255 of what is none.
_NIBBLE = np.full(256, 255, np.uint8)
for _digits in (b"0123456789abcdef", b"0123456789ABCDEF"):
    _NIBBLE[list(_digits)] = np.arange(16)


def file_hashes(data: bytes) -> tuple[str, str, str]:
    """SHA-256 of a file as it is, with LF for every line end, and with CRLF for every one."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    variants = (data, lines, lines.replace(b"\n", b"\r\n"))
    raw, unix, windows = (hashlib.sha256(variant).hexdigest() for variant in variants)
    return raw, unix, windows


def index_name(language: str, repository: str, path: str) -> str:
    r"""The name of a file in an index.

    An underscore before another, or at the end of a part, is written `\x5f`, so that `a/b.py` and `a__b.py` have
    names of their own and `split_name` gives the parts back; PolyCoder's index leaves it as it is.

    Args:
        path: as in a shard, escaped.
    """
    parts = [language, *repository.split("/"), *path.split("/")]
    return "__".join(_AMBIGUOUS.sub(r"\\x5f", part) for part in parts)


def split_name(name: str) -> tuple[str, str, bytes]:
    """Language, repository and path of a name that `index_name` gave."""
    language, organization, project, *path = name.split("__")
    language, organization, project = (
        unescape_path(part).decode() for part in (language, organization, project)
    )
    return language, f"{organization}/{project}", unescape_path("/".join(path))


def find_seen(index: Path, wanted: Collection[str]) -> set[str]:
    """Those of the wanted SHA-256 sums, in lower-case hex, that the index holds. Takes 32 bytes a wanted one.

    Raises:
        InputError: as `read_digests`.
    """
    sought = np.unique(np.frombuffer(bytes.fromhex("".join(wanted)), "S32"))
    seen = np.zeros(len(sought), bool)
    for digests in read_digests(index):
        seen |= are_in(sought, digests.view("S32").ravel())
    found = sought[seen].tobytes().hex()
    return {found[start : start + _HEX] for start in range(0, len(found), _HEX)}


def are_in(digests: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of the digests are among the others; both [n] S32."""
    # Comparing 8 bytes as a number is many times faster than 32 as text, and leaves next to nothing to compare.
    heads, other_heads = _heads(digests), _heads(others)
    likely = np.flatnonzero(np.isin(heads, other_heads))
    result = np.zeros(len(digests), bool)
    if len(likely):
        result[likely] = np.isin(digests[likely], others[np.isin(other_heads, heads[likely])])
    return result


def _heads(digests: np.ndarray) -> np.ndarray:
    return digests.view("<u8").reshape(-1, 4)[:, 0]


def read_digests(index: Path) -> Iterator[np.ndarray]:
    """The SHA-256 sums of an index, [n, 32] uint8, a block of lines at once.

    Raises:
        InputError: the index is absent, damaged, empty, or not in this form; the message names the line.
    """
    require_index(index)
    is_empty = True
    try:
        for name, stream in _streams(index):
            for digests in _parsed(name, stream):
                is_empty = is_empty and not len(digests)
                yield digests
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{index} is not a whole zip: {error}; fetch it again") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, or a compression of other programs
        raise InputError(f"{index} cannot be unpacked here: {error}; unpack it, and give the text") from error
    if is_empty:
        raise InputError(f"{index} holds no line; an index names each file of the training data")


def require_index(index: Path) -> None:
    """Refuse what is not there.

    Raises:
        InputError: there is no such file.
    """
    if index.is_dir():
        raise InputError(
            f"{index} is a folder, not an index; give the file that PolyCoder published (index.zip) or that "
            "tools/collect/write_index.py wrote"
        )
    if not index.is_file():
        raise InputError(f"the index {index} does not exist (looked for {index.absolute()})")


def _streams(index: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The text files that make up the index, with a name for messages."""
    with ExitStack() as stack:
        if not zipfile.is_zipfile(index) and index.suffix.lower() != ".zip":
            yield str(index), stack.enter_context(index.open("rb"))
            return
        archive = stack.enter_context(zipfile.ZipFile(index))
        for member in archive.infolist():
            if not member.is_dir():
                with archive.open(member) as file:
                    yield f"{index}({member.filename})", file


def _parsed(name: str, stream: IO[bytes]) -> Iterator[np.ndarray]:
    rest, num_lines = b"", 0
    while block := stream.read(_BLOCK_BYTES):
        whole, newline, tail = block.rpartition(b"\n")
        if newline:
            yield _digests(name, lines := rest + whole + newline, num_lines)
            num_lines += lines.count(b"\n")
            rest = tail
        else:
            rest += tail
        if len(rest) > _MOST_BYTES:  # so that a zip of next to nothing cannot fill the memory
            raise _no_line(name, num_lines + 1, rest)
    if rest:
        yield _digests(name, rest + b"\n", num_lines)


def _digests(name: str, lines: bytes, lines_before: int) -> np.ndarray:
    """Digests of whole lines, without those that are blank."""
    text = np.frombuffer(lines + bytes(_HEX), np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    ends = ends - ((ends > starts) & (text[ends - 1] == _RETURN))
    numbers = np.arange(len(ends))
    if (short := ends - starts <= _HEX).any():
        blank = [n for n in np.flatnonzero(short) if not lines[starts[n] : ends[n]].strip()]
        starts, ends, numbers = (np.delete(values, blank) for values in (starts, ends, numbers))
        short = np.delete(short, blank)
    places = np.maximum(ends - _HEX, 1)
    digits = _NIBBLE[np.lib.stride_tricks.sliding_window_view(text, _HEX)[places]]
    wrong = short | (text[places - 1] != _TAB) | (digits == 255).any(axis=1)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise _no_line(name, lines_before + int(numbers[first]) + 1, lines[starts[first] : ends[first]])
    return np.ascontiguousarray(digits[:, ::2] << 4 | digits[:, 1::2])


def _no_line(name: str, number: int, line: bytes) -> InputError:
    return InputError(
        f"{name}:{number}: not a line of an index: {line[:80]!r}\n"
        "  a line is LANGUAGE__ORGANIZATION__PROJECT__PATH, a tab, and the file's SHA-256 in hex"
    )
