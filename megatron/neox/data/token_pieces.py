"""What the inputs of a dataset are divided into: pieces that several processes read, and a later run finds again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.filters import Filter, first_reason
from megatron.neox.corpus.listing import changed, path_in, state_of
from megatron.neox.corpus.readers import parts_of
from megatron.neox.data.tokenize_settings import TokenizeSettings
from megatron.neox.files import write_whole
from megatron.neox.plugins import filters, readers


@dataclass(frozen=True)
class Pieces:
    """The pieces of some inputs, listed in a folder::

        part-000000.json    {"input": its place, "state": size and time of change, "part": for its reader}
        num_parts           how many there are: written last

    Args:
        inputs: reader and path of each.
        folder: gone when the dataset is made.
    """

    settings: TokenizeSettings
    inputs: Sequence[tuple[str, Path]]
    folder: Path

    def write_list(self, tally: Tally) -> None:
        """Divide the inputs; `tally` counts what is left out already."""
        number = 0
        for number, listed in enumerate(self._divide(tally), 1):
            write_whole(self._path(number - 1), json.dumps(listed))
        write_whole(self.folder / "num_parts", str(number))

    def count(self) -> int:
        """How many there are, once they are listed."""
        return int((self.folder / "num_parts").read_text(encoding="utf-8"))

    def documents(self, number: int, key: str, tally: Tally) -> Iterator[Document]:
        """Those of a piece that no filter leaves out, of records the text under `key`."""
        settings, piece = self.settings, self._read(number)
        name, path = self.inputs[piece["input"]]
        documents = readers.build(
            name,
            path,
            tally,
            part=piece["part"],
            key=key,
            column=settings.text_column,
            seed=settings.seed,
            extensions=settings.extensions,
            exclude=settings.exclude,
        )
        checks = [filters.build(filter_name) for filter_name in settings.filters]
        return _filtered(documents, checks, tally) if checks else documents

    def check_inputs(self) -> None:
        """Refuse to go on where the inputs would be divided into other pieces than are listed.

        Raises:
            OutputError: they would; names the input, of a folder the file.
        """
        if not (self.folder / "num_parts").exists():
            return  # nothing is read yet
        count, number = self.count(), 0
        for number, listed in enumerate(self._divide(Tally()), 1):
            if number > count or self._read(number - 1) != listed:
                break
        else:
            if number == count:
                return
        raise changed(self._first_changed())

    def _divide(self, tally: Tally) -> Iterator[dict[str, Any]]:
        settings = self.settings
        for place, (name, path) in enumerate(self.inputs):
            state = "" if name == "directory" else state_of(path)  # of a folder, the parts say it
            parts = parts_of(
                name,
                path,
                tally,
                seed=settings.seed,
                extensions=settings.extensions,
                exclude=settings.exclude,
            )
            yield from ({"input": place, "state": state, "part": part} for part in parts)

    def _first_changed(self) -> Path:
        """The first input that is not what it was; of a folder, the first file in it."""
        before, now = map(self._read, range(self.count())), self._divide(Tally())
        places = range(len(self.inputs))
        was, is_now = (_by_input(listed, len(places)) for listed in (before, now))
        place = next(place for place in places if was[place] != is_now[place])
        name, path = self.inputs[place]
        if name != "directory":
            return path
        files = [
            {os.fsencode(one) for listed in side[place] for one in listed["part"]} for side in (was, is_now)
        ]
        return path / os.fsdecode(path_in(min(files[0] ^ files[1])))

    def _read(self, number: int) -> dict[str, Any]:
        return json.loads(self._path(number).read_text(encoding="utf-8"))

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.json"


def _by_input(listed: Iterator[dict[str, Any]], num_inputs: int) -> list[list[dict[str, Any]]]:
    pieces: list[list[dict[str, Any]]] = [[] for _ in range(num_inputs)]
    for piece in listed:
        pieces[piece["input"]].append(piece)
    return pieces


def _filtered(documents: Iterator[Document], checks: Sequence[Filter], tally: Tally) -> Iterator[Document]:
    for document in documents:
        if (reason := first_reason(document, checks)) is None:
            yield document
        else:
            tally.skip(reason)
