"""A text file, read whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from megatron.neox.corpus.document import MOST_BYTES, Document, Tally
from megatron.neox.errors import InputError
from megatron.neox.plugins import readers


@readers.register("text")
def read_text(path: Path, tally: Tally) -> Iterator[Document]:
    """The whole file is one document.

    Raises:
        InputError: the file cannot be read, or has more than a gibibyte.
    """
    del tally  # it leaves nothing out
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{path} is one document of more than {MOST_BYTES >> 20} MiB; divide it into files of a folder, or into "
            "records of a .jsonl file"
        )
    yield Document(str(path), data, is_file=True)
