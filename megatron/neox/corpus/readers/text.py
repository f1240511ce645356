"""A text file, read whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.errors import InputError
from megatron.neox.plugins import readers


@readers.register("text")
def read_text(path: Path, tally: Tally) -> Iterator[Document]:
    """The whole file is one document.

    Raises:
        InputError: the file cannot be read.
    """
    del tally  # it leaves nothing out
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    yield Document(str(path), data, is_file=True)
