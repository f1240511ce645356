"""Files of JSON objects, one a line, read with the place of whatever is wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron.neox.errors import InputError


def read_objects(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place (`file:line`) and object of each line that is not blank; .gz is unpacked.

    Args:
        path: the file.
        what: what it is to the user, for messages.

    Raises:
        InputError: it is absent or empty, is not UTF-8, or a line is no JSON object.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8: byte {error.start} cannot be read") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{what} {path} is no complete gzip file: {error}") from None
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}") from None
    lines = text.split("\n")
    if not text.strip():
        raise InputError(f"{what} {path} is empty")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}:{number}", _object(line, f"{path}:{number}", is_last=number == len(lines))


def _object(line: str, place: str, *, is_last: bool) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        if is_last:  # no line end follows
            raise InputError(f"{place}: the file breaks off within this line; write it again") from None
        raise InputError(f"{place}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{place}: not a JSON object")
    return found
