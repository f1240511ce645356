"""Files of lines that appear under their name when they are complete."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from megatron.neox.errors import OutputError

log = logging.getLogger(__name__)


class LineFile:
    """A text file written a line at a time; a context manager.

    Until it is complete it is NAME.partial, which can be followed while it grows and stays behind when the
    run is broken off. A file that had the name before is replaced then.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        refuse_unwritable(path)
        self._file: IO[str] = self.partial.open("w", encoding="utf-8", newline="\n")

    def write(self, line: str) -> None:
        """Add a line, at once visible to whoever reads the partial file."""
        self._file.write(line + "\n")
        self._file.flush()

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file as file:
            if error is None:
                file.flush()
                os.fsync(file.fileno())
        if error is None:
            os.replace(self.partial, self.path)
        elif self.partial.stat().st_size:
            log.warning("%s holds the lines written so far", self.partial)
        else:
            self.partial.unlink()


def refuse_unwritable(path: Path) -> None:
    """Make the folder of an output file, and see that it can be written to: before hours of work, not after.

    Raises:
        OutputError: it cannot, or the path is a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise OutputError(f"output {path} is a folder; name a file")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OutputError(f"output {path} cannot be written: {error.strerror}; name another place") from error
