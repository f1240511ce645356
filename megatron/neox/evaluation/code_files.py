"""Files of code by language: a folder LANG/USER/REPO/FILE, a tar of it, or a parquet file.

What a tar or parquet file holds is read once for all languages; nothing of it is written anywhere.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.parquet_files import batches_of, open_parquet
from megatron.neox.corpus.readers import read_directory
from megatron.neox.errors import InputError, did_you_mean
from megatron.neox.evaluation.languages import LANGUAGES

_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_TEXT_COLUMNS = ("content", "text")
_NAME_COLUMNS = ("path", "max_stars_repo_path", "name")


class NoFilesError(InputError):
    """There is no file of some languages; `together` makes one message of several."""

    def __init__(self, path: Path, languages: Sequence[str], found: Sequence[str]) -> None:
        self.path, self.languages, self.found = path, list(languages), list(found)
        super().__init__(
            f"{path} holds no file of {', '.join(languages)}; languages found: {', '.join(found) or 'none'}\n"
            "  it takes LANGUAGE/USER/REPOSITORY/FILE in a folder or a tar, or parquet with the columns content "
            "and language; eval_data_path names it"
        )

    def __reduce__(self) -> tuple[type[NoFilesError], tuple[Path, list[str], list[str]]]:
        """Travel between processes as the parts of the message."""
        return type(self), (self.path, self.languages, self.found)


def read_documents(path: Path, language: str, tally: Tally) -> list[Document]:
    """All files of one of the twelve languages, by name; `tally` counts links and the like, left out.

    Raises:
        NoFilesError: there is none.
        InputError: nothing is at the path, or it cannot be read.
    """
    if not path.exists():
        raise InputError(
            f"eval_data_path {path} does not exist (looked for {path.absolute()})\n"
            "  tools/download_eval_data.py fetches PolyCoder's test sets; eval_data_path names files of your own"
        )
    if path.is_dir():
        folder = path / language
        documents = list(read_directory(folder, tally)) if folder.is_dir() else []
        found = sorted(name for name in LANGUAGES.values() if (path / name).is_dir())
    else:
        by_language = _read_archive(path, path.stat().st_mtime_ns)
        documents, found = list(by_language.get(language, [])), sorted(by_language)
    if not documents:
        raise NoFilesError(path, [language], [name for name in found if name != language])
    return documents


@lru_cache(maxsize=1)
def _read_archive(path: Path, changed: int) -> Mapping[str, Sequence[Document]]:
    """Documents by language; `changed` tells a new version of the file from the one that is remembered."""
    del changed
    if path.name.lower().endswith(_TAR_ENDINGS):
        pairs = _read_tar(path)
    elif path.name.lower().endswith(".parquet"):
        pairs = _read_parquet(path)
    else:
        raise InputError(f"eval_data_path {path} is neither a folder, nor .tar.gz, nor .parquet")
    documents: dict[str, list[Document]] = defaultdict(list)
    for language, document in pairs:
        documents[language].append(document)
    return {language: sorted(files, key=lambda file: file.name) for language, files in documents.items()}


def _read_tar(path: Path) -> Iterator[tuple[str, Document]]:
    languages = set(LANGUAGES.values())
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if member.name.startswith("/") or ".." in parts:
                    raise InputError(f"{path} is refused: {member.name!r} leads out of the folder")
                at = next((place for place, part in enumerate(parts[:-1]) if part in languages), None)
                file = archive.extractfile(member) if member.isreg() and at is not None else None
                if file is not None and at is not None:
                    yield parts[at], Document("/".join(parts[at + 1 :]), file.read(), is_file=True)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path} is not a whole tar archive: {error}; fetch it again") from error


def _read_parquet(path: Path) -> Iterator[tuple[str, Document]]:
    languages = {name.casefold(): name for name in LANGUAGES.values()}
    with open_parquet(path) as file:
        text, names = _columns(path, file.schema_arrow.names)
        number = 0
        for batch in batches_of(file, [text, "language", *names]):
            for row in batch.to_pylist():
                number += 1
                language = languages.get(str(row["language"]).casefold())
                if language is not None and row[text] is not None:
                    name = str(row[names[0]]) if names else f"{path.name}:{number}"
                    yield language, Document(name, _as_bytes(path, text, row[text]), is_file=True)


def _columns(path: Path, columns: Sequence[str]) -> tuple[str, list[str]]:
    """The column of texts, and the one of names where there is one."""
    text = next((name for name in _TEXT_COLUMNS if name in columns), None)
    if text is None or "language" not in columns:
        lacking = "language" if text else "content or text"
        raise InputError(
            f"{path} has no column {lacking}{did_you_mean(lacking, columns)}; it has: {', '.join(columns)}"
        )
    return text, [name for name in _NAME_COLUMNS if name in columns][:1]


def _as_bytes(path: Path, column: str, cell: Any) -> bytes:
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str):
        raise InputError(f"{path}: the column {column} holds {type(cell).__name__}, not text")
    return cell.encode()
