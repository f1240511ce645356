"""JSON lines that a run adds to and a later one goes on from, whenever the first was killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from megatron.neox.errors import InputError


class LineLog:
    """A line is on the disk when `append` returns; half a line, which a kill left, is cut off at the next start."""

    def __init__(self, path: Path, take: Callable[[Any], None], advice: str) -> None:
        """Give `take` what each line holds that is there.

        Args:
            take: raises ValueError, KeyError or TypeError for what is no line of its kind.
            advice: what such a line is not, and what to do.

        Raises:
            InputError: there is such a line; the message names it.
        """
        path.touch()
        with path.open("rb+") as file:
            whole = 0
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    take(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{path}:{number}: {advice}") from error
                whole += len(line)
            file.truncate(whole)
        self._file = path.open("ab")

    def append(self, row: Any) -> None:
        """Add a line."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
