"""Repositories as a crawl lists them: `TopLists/LANGUAGE-top-repos.txt`, manifest.jsonl, or plain addresses."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from megatron.neox.errors import InputError

LIST_ENDING = "-top-repos.txt"
MANIFEST = "manifest.jsonl"

# What may become the name of a folder: GitHub allows no more than this.
_NAME_PART = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]+")
_LANGUAGE = re.compile(r"(?!\.)[^/\x00-\x1f\"\\]+")
_ADDRESS = re.compile(r"[a-z+]+://[!-~]+")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Repository:
    """One repository, and what was known of it when it was listed; None where nothing is.

    Attributes:
        name: ORGANIZATION/PROJECT.
        license: SPDX identifier, such as `MIT`; `NOASSERTION` where GitHub knows the file but not the licence.
        commit: head of the default branch, or the commit that was cloned.
        disk_kilobytes: with the whole history, which a shallow clone does not fetch.
        id: GitHub's number, which outlives a change of the name.
        query: the search that found it.
        asked_at: when that was answered, in UTC.
    """

    language: str
    name: str
    url: str
    stars: int | None = None
    license: str | None = None
    commit: str | None = None
    created_at: str | None = None
    pushed_at: str | None = None
    disk_kilobytes: int | None = None
    is_archived: bool | None = None
    primary_language: str | None = None
    id: int | None = None
    query: str | None = None
    asked_at: str | None = None

    def row(self) -> dict[str, Any]:
        """One line of a manifest."""
        return asdict(self)


_ROWS = TypeAdapter(Repository)


def repository_of(row: Any, where: str) -> Repository:
    """A repository from an entry of a manifest; keys that it does not have are left aside.

    Raises:
        InputError: a value is absent, of another type, or no name for a folder.
    """
    return _read_row(json.dumps(row), where)


def _read_row(line: str, where: str) -> Repository:
    try:
        repository = _ROWS.validate_json(line, strict=True)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the line'}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise InputError(f"{where}: {problems}; a line of a {MANIFEST} is expected") from error
    check_language(repository.language, where)
    check_name(repository.name, where)
    if not _ADDRESS.fullmatch(repository.url):
        raise InputError(f"{where}: url {repository.url!r} is no address")
    _refuse_login(repository.url, where)
    if repository.commit is not None and not _COMMIT.fullmatch(repository.commit):
        raise InputError(f"{where}: commit {repository.commit!r} is no object name of git")
    return repository


def check_language(language: str, where: str) -> None:
    """Refuse a language that could not name a folder or would end a search's quotes."""
    if not _LANGUAGE.fullmatch(language):
        raise InputError(f"{where}: {language!r} is not the name of a language")


def check_name(name: str, where: str) -> None:
    """Refuse what is not ORGANIZATION/PROJECT, or could not name folders."""
    parts = name.split("/")
    if len(parts) != 2 or not all(map(_NAME_PART.fullmatch, parts)):
        raise InputError(f"{where}: {name!r} is not ORGANIZATION/PROJECT")


def read_manifest(path: Path) -> Iterator[Repository]:
    """The repositories of a manifest.jsonl or clones.jsonl, in its order.

    Raises:
        InputError: the file is absent, or a line is none of a manifest.
    """
    for number, line in _lines(path):
        yield _read_row(line, f"{path}:{number}")


def read_list(path: Path, language: str | None = None) -> Iterator[Repository]:
    """The repositories of `stars<TAB>address` lines, or of addresses alone.

    Args:
        language: none reads it from the name, `LANGUAGE-top-repos.txt`.

    Raises:
        InputError: the file is absent, no language is known, or a line has no address of a repository.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist (looked for {path.absolute()})")
    if language is None:
        if not path.name.endswith(LIST_ENDING):
            raise InputError(
                f"{path}: the language is not in the name, as in Python{LIST_ENDING}; give --language"
            )
        language = path.name.removesuffix(LIST_ENDING)
    check_language(language, str(path))
    for number, line in _lines(path):
        stars, _, url = line.rpartition("\t")
        if stars and not stars.isdecimal():
            raise InputError(f"{path}:{number}: {stars!r} is no number of stars")
        name = name_of(url, f"{path}:{number}")
        yield Repository(language=language, name=name, url=url, stars=int(stars) if stars else None)


def name_of(url: str, where: str) -> str:
    """ORGANIZATION/PROJECT, the last two parts of an address.

    Raises:
        InputError: it is no address, has fewer parts, or carries a password.
    """
    parts = urllib.parse.urlsplit(url)
    if not parts.scheme:
        raise InputError(f"{where}: {url!r} is no address such as https://github.com/ORGANIZATION/PROJECT")
    _refuse_login(url, where)
    name = "/".join(parts.path.strip("/").removesuffix(".git").split("/")[-2:])
    check_name(name, where)
    return name


def _refuse_login(url: str, where: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "file" and "@" in parts.netloc:
        raise InputError(
            f"{where}: the address carries a user or password, which would be recorded; remove it"
        )


def read_folder(folder: Path) -> Iterator[Repository]:
    """The repositories of all lists in a crawl's folder, with what its manifest knows of them.

    Raises:
        InputError: there is no list.
    """
    lists = sorted(folder.glob(f"*{LIST_ENDING}"))
    if not lists:
        raise InputError(f"{folder} holds no LANGUAGE{LIST_ENDING}; tools/collect/gh_crawler.py writes them")
    manifest = folder / MANIFEST
    known = (
        {(entry.language, entry.url): entry for entry in read_manifest(manifest)} if manifest.exists() else {}
    )
    for path in lists:
        for listed in read_list(path):
            yield known.get((listed.language, listed.url), listed)


def by_stars(repositories: Iterable[Repository]) -> list[Repository]:
    """Most stars first, those of as many by name."""
    return sorted(repositories, key=lambda entry: (-(entry.stars or 0), entry.name))


def list_text(repositories: Sequence[Repository]) -> str:
    """The lines `stars<TAB>address` of one language."""
    return "".join(f"{entry.stars or 0}\t{entry.url}\n" for entry in repositories)


def manifest_text(repositories: Iterable[Repository]) -> str:
    """The lines of a manifest."""
    return "".join(json.dumps(entry.row()) + "\n" for entry in repositories)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that hold something."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.strip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8; is it a list of repositories?") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
