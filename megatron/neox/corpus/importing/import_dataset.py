"""Other people's datasets of source code to our shards: parquet and JSON lines, from folders or from the hub.

A file becomes the shard of its number, read a few hundred rows at once; one of the hub is fetched for its task and goes
with it. `sha256` and `size` are those of the content as it stands in the dataset.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from megatron.neox.corpus.extraction.languages import LANGUAGES, language_of
from megatron.neox.corpus.extraction.source_files import is_vendored
from megatron.neox.corpus.extraction.source_text import Encoding, source_text
from megatron.neox.corpus.importing.records import (
    ENDINGS,
    first_text,
    num_parquet_rows,
    read_records,
    text_list,
    whole_number,
)
from megatron.neox.corpus.listing import changed, state_of
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.shards import SourceFile, escape_path, new_shard, shard_name
from megatron.neox.corpus.stages.stage import Phase, Stage, work_folder
from megatron.neox.errors import InputError
from megatron.neox.files import write_whole

log = logging.getLogger(__name__)

HUB = "hf://datasets/"
NO_NAME = "unknown/unknown"
ROWS = "rows"

_LOOKED_AT_BYTES = 64 << 10

_HUB_FORM = re.compile(
    r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<below>.+?)/?)?"
)
_CANONICAL = {name.casefold(): name for name in LANGUAGES} | {"c-sharp": "C#", "cpp": "C++", "csharp": "C#"}


@dataclass(frozen=True)
class Columns:
    """Where a dataset has what; None where it has it not.

    Attributes:
        language: a column; `fixed_language` stands for all rows where there is none.
    """

    content: str = "content"
    repository: str | None = None
    path: str | None = None
    language: str | None = None
    licenses: str | None = None
    stars: str | None = None
    commit: str | None = None
    fixed_language: str | None = None

    def named(self) -> list[str]:
        """Columns that must be there, the content's first."""
        others = (self.repository, self.path, self.language, self.licenses, self.stars, self.commit)
        return list(dict.fromkeys([self.content, *(name for name in others if name)]))


PRESETS: Mapping[str, Columns] = {
    "the-stack": Columns(
        "content", "max_stars_repo_name", "max_stars_repo_path", "lang", "max_stars_repo_licenses",
        "max_stars_count",
    ),
    "codeparrot": Columns("content", "repo_name", "path", None, "license", fixed_language="Python"),
}  # fmt: skip
"""The Stack (bigcode/the-stack) and CodeParrot's (codeparrot/codeparrot-clean and what was made like it)."""


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What to import.

    Attributes:
        inputs: files, folders of them, and `hf://datasets/USER/NAME[@REVISION][/FOLDER or /FILE]`.
        encoding: as `source_text`, of a content of bytes.
    """

    inputs: tuple[str, ...]
    output: Path
    columns: Columns = Columns()
    encoding: Encoding = "skip"


@dataclass(frozen=True)
class Source:
    """A file to import, and what it is wherever it lies."""

    place: str
    identity: str


def importing(settings: ImportSettings) -> Stage:
    """The stage.

    Raises:
        InputError: there is no file, one has not the columns, or there is no row in any.
    """
    sources = tuple(source for text in settings.inputs for source in _sources(text, settings.output))
    if not sources:
        raise InputError(f"{', '.join(settings.inputs)} holds no file that ends with {', '.join(ENDINGS)}")
    _look_at([Path(source.place) for source in sources if not source.place.startswith(HUB)], settings.columns)
    told = {
        "inputs": [source.identity for source in sources],
        "columns": {key: value for key, value in vars(settings.columns).items() if value is not None},
        "encoding": settings.encoding,
    }
    task = ImportTask(settings, sources)
    here = [Path(text) for text in settings.inputs if not text.startswith(HUB)]
    phases = [Phase("import", len(sources), task)]
    return Stage("import", settings.output, told, phases, _refuse_nothing, here, task.check_inputs)


def _sources(text: str, output: Path) -> list[Source]:
    """What stands for an input; an output that lies in it is none of it."""
    if text.startswith(HUB):
        return _hub_sources(text)
    path = Path(text)
    if not path.exists():
        raise InputError(f"the input {path} does not exist (looked for {path.absolute()})")
    files = sorted(file for file in path.rglob("*") if _is_wanted(file.name)) if path.is_dir() else [path]
    here = output.resolve()
    files = [file for file in files if file.is_file() and not file.resolve().is_relative_to(here)]
    if len(files) == 1 and not _is_wanted(files[0].name):
        raise InputError(f"{path} ends with none of {', '.join(ENDINGS)}")
    return [Source(str(file), _identity(file)) for file in files]


def _identity(path: Path) -> str:
    """A file's name, and a hash of its size, beginning and end, where parquet says what it holds."""
    size = path.stat().st_size
    digest = sha256(f"{size} ".encode())
    with path.open("rb") as file:
        digest.update(file.read(_LOOKED_AT_BYTES))
        file.seek(max(0, size - _LOOKED_AT_BYTES))
        digest.update(file.read(_LOOKED_AT_BYTES))
    return f"{_escaped(path.name)} {digest.hexdigest()}"


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def _hub_sources(text: str) -> list[Source]:
    """The dataset's files at the commit that its revision has now.

    Raises:
        InputError: there is no such dataset, or it may not be read.
    """
    from httpx2 import HTTPError  # what the hub's client lets through
    from huggingface_hub import HfApi

    found = _HUB_FORM.fullmatch(text)
    if found is None:
        raise InputError(f"{text} is not hf://datasets/USER/NAME[@REVISION][/FOLDER or /FILE]")
    name, below = found["name"], found["below"]
    try:
        told = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).dataset_info(name, revision=found["revision"])
    except (HTTPError, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{text} cannot be read: {reason}; of a gated dataset, accept the terms on its page, then set HF_TOKEN"
        ) from error
    files = sorted(entry.rfilename for entry in told.siblings or [])
    if below:
        files = [file for file in files if file == below or file.startswith(f"{below}/")]
    return [
        Source(place, place) for file in files if _is_wanted(Path(file).name)
        for place in (f"{HUB}{name}@{told.sha}/{file}",)
    ]  # fmt: skip


def _look_at(paths: Sequence[Path], columns: Columns) -> None:
    """Refuse what can be known to be wrong before anything is written; say which files are empty."""
    rows = {
        path: num_parquet_rows(path, columns.named())
        if path.name.lower().endswith(".parquet")
        else path.stat().st_size
        for path in paths
    }
    empty = [path for path, number in rows.items() if not number]
    if paths and len(empty) == len(paths):
        raise InputError(
            f"{empty[0]} has no row{f', nor have {len(empty) - 1} others' if len(empty) > 1 else ''}"
        )
    for path in empty:
        log.warning("%s has no row", path)


@dataclass(frozen=True)
class ImportTask:
    """Imports a file to the shard of the task's number."""

    settings: ImportSettings
    sources: tuple[Source, ...]

    def __call__(self, number: int) -> Counts:
        """Write the shard; return what became of the rows."""
        counts = Counts()
        place = self.sources[number].place
        fetched = work_folder(self.settings.output) / f"fetched-{number:05d}"
        path = _fetch(place, fetched) if place.startswith(HUB) else Path(place)
        state = state_of(path)
        columns = self.settings.columns
        with new_shard(self.settings.output / shard_name(number)) as shard:
            for row_number, row in read_records(path, columns.named()):
                counts.numbers[ROWS] += 1
                file = _imported(row, f"{path.name}:{row_number}", columns, self.settings.encoding, counts)
                if file is not None:
                    counts.keep(file.language, file.size)
                    shard.write(file)
        shutil.rmtree(fetched, ignore_errors=True)
        if not place.startswith(HUB):
            write_whole(self._state_path(number), state)
        return counts

    def check_inputs(self) -> None:
        """Refuse to go on where a file of a task that is done has changed.

        Raises:
            OutputError: one has; it is named.
        """
        for number, source in enumerate(self.sources):
            path = self._state_path(number)
            if path.exists() and path.read_text("utf-8") != state_of(Path(source.place)):
                raise changed(source.place)

    def _state_path(self, number: int) -> Path:
        return work_folder(self.settings.output) / f"state-{number:05d}"


def _fetch(place: str, folder: Path) -> Path:
    from megatron.neox.downloads.hub import fetch_hub_file
    from megatron.neox.downloads.progress import ProgressLines

    with closing(ProgressLines(sys.stderr)) as progress:
        return fetch_hub_file(place, folder, progress)


def _imported(
    row: Mapping[str, Any], where: str, columns: Columns, encoding: Encoding, counts: Counts
) -> SourceFile | None:
    """A row as ours; None, and counted, where it has no text."""
    path = first_text(row, columns.path, where) or where
    language = first_text(row, columns.language, where) or columns.fixed_language
    language = _CANONICAL.get(language.casefold(), _escaped(language)) if language else None
    content = row.get(columns.content)
    if content is None:
        counts.leave_out("null", language or "unknown")
        return None
    if not isinstance(content, str | bytes):
        raise InputError(f"{where}: {columns.content} holds {type(content).__name__}, not text or bytes")
    # A lone surrogate, which JSON can write, is no UTF-8 in bytes either.
    data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    raw_path = path.encode(errors="surrogatepass")
    text, reason = source_text(data, encoding)
    if reason:
        counts.leave_out(reason, language or "unknown", len(data))
        return None
    if language is None:
        language = language_of(raw_path.rpartition(b"/")[2], text) or "unknown"
    return SourceFile(
        repository=_escaped(first_text(row, columns.repository, where) or NO_NAME),
        language=language, path=escape_path(raw_path), sha256=sha256(data).hexdigest(), size=len(data),
        stars=whole_number(row.get(columns.stars) if columns.stars else None, f"{where}: {columns.stars}"),
        licenses=list(map(_escaped, _licenses(row, columns, where))),
        commit=_escaped(first_text(row, columns.commit, where) or "") or None,
        vendored=is_vendored(raw_path, ()), content=text,
    )  # fmt: skip


def _licenses(row: Mapping[str, Any], columns: Columns, where: str) -> list[str]:
    value = row.get(columns.licenses) if columns.licenses else None
    return text_list(value, f"{where}: {columns.licenses}")


def _escaped(name: str) -> str:
    """A name on one line, whatever JSON can write into it."""
    return escape_path(name.encode(errors="surrogatepass"))


def _refuse_nothing(counts: Counts) -> Mapping[str, Any]:
    """Say so where not one row was there; of files of the hub that is known only now.

    Raises:
        InputError: as it says.
    """
    if not counts.numbers[ROWS]:
        raise InputError("the dataset has no row; nothing was imported")
    return {}


def columns_of(preset: str | None, given: Mapping[str, str | None]) -> Columns:
    """The columns of a preset, with those that are given in the place of its own."""
    return replace(
        PRESETS[preset] if preset else Columns(), **{key: name for key, name in given.items() if name}
    )
