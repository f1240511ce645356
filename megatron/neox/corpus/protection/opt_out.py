"""Repositories whose owners do not want them in a training set."""

from __future__ import annotations

import re
from pathlib import Path

from megatron.neox.errors import InputError

_REPOSITORY = re.compile(
    r"(?:(?:https?|ssh|git)://(?:[^/\s@]+@)?[^/\s]+/|git@[^:/\s]+:)?([^/\s]+/[^/\s]+?)(?:\.git)?/?"
)


def read_opt_out(path: Path) -> frozenset[str]:
    """Names, in lower case, from a file with one ORGANIZATION/PROJECT or address a line; `#` begins a comment.

    `ORGANIZATION/*` is all that an organisation or a person has.

    Raises:
        InputError: the file cannot be read, or a line (named) is neither.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list of repositories {path}: {error}") from error
    names: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not (text := line.partition("#")[0].strip()):
            continue
        match = _REPOSITORY.fullmatch(text)
        if match is None:
            raise InputError(
                f"{path}:{number}: {text!r} is no repository; give ORGANIZATION/PROJECT or its address, or "
                "ORGANIZATION/* for all that it has"
            )
        names.add(match[1].lower())
    return frozenset(names)


def is_opted_out(repository: str, names: frozenset[str]) -> bool:
    """Whether a list that `read_opt_out` gave names a repository, or all of its owner's."""
    name = repository.lower()
    return name in names or f"{name.partition('/')[0]}/*" in names
