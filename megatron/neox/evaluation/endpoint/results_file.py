"""What was scored, a JSON object a line, so that a run that was broken off goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from megatron.neox.errors import OutputError

Row = dict[str, Any]


class ResultsFile:
    """Rows by their key; a context manager that holds the file against other processes.

    A row is appended by one write, whole: after SIGKILL all rows that were added are there. A last line without its
    end, as a full disk leaves it, is cut off. Rows of other settings, and of other files, stay.

    Raises:
        OutputError: it cannot be written, another process writes it, or it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise OutputError(
                f"results {path} cannot be written: {error.strerror}; name another place"
            ) from error

    def __enter__(self) -> ResultsFile:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError:
            os.close(self._file)
            raise OutputError(f"{self.path} is being written by another process; wait for it") from None
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def add(self, key: str, row: Row) -> None:
        """Append a row."""
        self.rows[key] = row
        line = json.dumps({"key": key, **row}, ensure_ascii=False).encode() + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError(28, os.strerror(28), str(self.path))

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                self.rows[row.pop("key")] = row
            except (ValueError, TypeError, KeyError, AttributeError):
                raise OutputError(
                    f"{self.path}:{number} is no row of results; remove the file, or name another with --output"
                ) from None
        os.ftruncate(self._file, len(whole))
