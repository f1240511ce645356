"""Which files a model has seen in training, by an index of what it was trained on.

The index is PolyCoder's: a line `{language}__{organization}__{project}__{path}<TAB>SHA256` for each file, of the
bytes as they lay on the disk; plain or inside a zip. It is read as a stream, so that its size does not matter.

Only exact copies are found. A file that was reformatted, or cut out of another, passes for unseen; line ends alone
make no difference where the copy trained on had LF.
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

from megatron.neox.errors import InputError

_HASH = re.compile(rb"[0-9a-fA-F]{64}")


def file_hashes(data: bytes) -> tuple[str, str]:
    """SHA-256 of a file as it is, and with LF for CRLF and CR."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return hashlib.sha256(data).hexdigest(), hashlib.sha256(lines).hexdigest()


def find_seen(index: Path, wanted: Collection[str]) -> set[str]:
    """Those of the wanted hashes that the index holds.

    Raises:
        InputError: the index is absent, damaged, or not in this form; the message names the line.
    """
    if not index.is_file():
        raise InputError(f"eval_contamination_index {index} does not exist (looked for {index.absolute()})")
    sought = {digest.encode() for digest in wanted}
    seen: set[bytes] = set()
    num_lines = 0
    try:
        for name, lines in _streams(index):
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                num_lines += 1
                digest = line.rstrip(b"\r\n").rpartition(b"\t")[2]
                if b"\t" not in line or not _HASH.fullmatch(digest):
                    raise InputError(
                        f"{name}:{number}: not a line of an index: {line[:80]!r}\n"
                        "  a line is LANGUAGE__ORGANIZATION__PROJECT__PATH, a tab, and the file's SHA-256 in hex"
                    )
                if digest.lower() in sought:
                    seen.add(digest.lower())
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{index} is not a whole zip: {error}; fetch it again") from error
    if not num_lines:
        raise InputError(f"{index} holds no line; an index names each file of the training data")
    return {digest.decode() for digest in seen}


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
