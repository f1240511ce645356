"""A crawl from its settings to the lists of the repositories with most stars, and again from its manifest."""

from __future__ import annotations

import calendar
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron.neox.corpus.crawl.github import API_URL, GitHub
from megatron.neox.corpus.crawl.journal import Journal
from megatron.neox.corpus.crawl.language import Found, LanguageSearch
from megatron.neox.corpus.crawl.windows import Window
from megatron.neox.corpus.repositories import (
    LIST_ENDING,
    MANIFEST,
    Repository,
    by_stars,
    check_language,
    list_text,
    manifest_text,
    read_manifest,
)
from megatron.neox.downloads.evaluation_sets import LANGUAGES
from megatron.neox.downloads.fetch import Patience
from megatron.neox.downloads.lock import alone_in
from megatron.neox.errors import InputError, OutputError, did_you_mean
from megatron.neox.files import write_whole

log = logging.getLogger(__name__)

RECORD = "crawl.json"
_ANSWERS = ".answers"
_FIRST_REPOSITORY = calendar.timegm((2007, 1, 1, 0, 0, 0))  # GitHub opened later that year


@dataclass(frozen=True, kw_only=True)
class CrawlSettings:
    """What to look for; the defaults are PolyCoder's.

    Attributes:
        limit: most repositories of a language.
        pushed_since: a date; repositories without a push since are left out.
        created_until: a time in UTC; none is the start of the crawl.
    """

    languages: Sequence[str] = LANGUAGES
    min_stars: int = 50
    limit: int = 25_000
    pushed_since: str = "2020-01-01"
    created_until: str | None = None
    api_url: str = API_URL


def crawl(
    settings: CrawlSettings, output: Path, token: str, *, patience: Patience, throttled_seconds: float = 60.0
) -> dict[str, Any]:
    """Write LANGUAGE-top-repos.txt, manifest.jsonl and crawl.json into `output`; return what crawl.json says.

    A crawl that was stopped, also by SIGKILL, goes on; one that is done is left as it is.

    Raises:
        OutputError: `output` holds a crawl with other settings, or another run is writing it.
        InputError: the token or a setting is refused.
        ResourceError: GitHub does not answer.
    """
    if not settings.languages:
        raise InputError(
            "--languages names none; give some, such as C,Rust, or leave it out for PolyCoder's twelve"
        )
    for language in settings.languages:
        check_language(language, "--languages")
    github = GitHub(token, api_url=settings.api_url, patience=patience, throttled_seconds=throttled_seconds)
    with alone_in(output):
        record = _begun(settings, output)
        if record["ended"]:
            return record
        (output / _ANSWERS).mkdir(exist_ok=True)
        window = _window(settings, record["created_until"])
        repositories: list[Repository] = []
        for language in settings.languages:
            with Journal(output / _ANSWERS / f"{language}.jsonl") as journal:
                search = LanguageSearch(
                    github, journal, language=language, pushed_since=settings.pushed_since,
                    wait_seconds=patience.wait_seconds,
                )  # fmt: skip
                found = search.run(window, settings.limit)
                record["languages"][language] = _counts(found, len(journal))
            _warn_of_none(language, found)
            repositories += found.repositories
            write_whole(output / f"{language}{LIST_ENDING}", list_text(found.repositories))
        write_whole(output / MANIFEST, manifest_text(repositories))
        record["ended"] = _now()
        _write_record(output, record)
    return record


def replay(manifest: Path, output: Path) -> dict[str, int]:
    """Write the lists of a crawl from its manifest, without a network; return the number of each language.

    Raises:
        InputError: the manifest is absent, empty, or has a line that is none.
        OutputError: `output` holds a crawl.
    """
    repositories = list(read_manifest(manifest))
    if not repositories:
        raise InputError(f"{manifest} names no repository")
    record = manifest.with_name(RECORD)
    with alone_in(output):
        taken = next((path for path in output.iterdir() if _is_of_a_crawl(path)), None)
        if taken is not None:
            raise OutputError(f"{taken} exists already; give another --output")
        by_language: dict[str, list[Repository]] = {}
        for entry in repositories:
            by_language.setdefault(entry.language, []).append(entry)
        for language, entries in by_language.items():
            write_whole(output / f"{language}{LIST_ENDING}", list_text(by_stars(entries)))
        if record.is_file():
            write_whole(output / RECORD, record.read_text(encoding="utf-8"))
        else:
            log.warning("%s is absent, so that the crawl's settings are not copied", record)
        write_whole(output / MANIFEST, manifest_text(repositories))
    return {language: len(entries) for language, entries in by_language.items()}


def _is_of_a_crawl(path: Path) -> bool:
    return path.name in (RECORD, MANIFEST, _ANSWERS) or path.name.endswith(LIST_ENDING)


def _begun(settings: CrawlSettings, output: Path) -> dict[str, Any]:
    """The record of this crawl: of the run that began it, or a new one."""
    asked = {**asdict(settings), "languages": list(settings.languages)}
    path = output / RECORD
    if not path.exists():
        if taken := next((entry for entry in output.iterdir() if _is_of_a_crawl(entry)), None):
            raise OutputError(
                f"{taken} is there without {RECORD}, so it is of no known crawl; give another --output"
            )
        started = _now()
        until = settings.created_until or started
        record = {
            "settings": asked,
            "created_until": until,
            "started": started,
            "ended": None,
            "languages": {},
        }
        _write_record(output, record)
        return record
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        before = record["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is not the record of a crawl; give another --output") from error
    changed = [
        f"{key} {before.get(key)} (now {value})" for key, value in asked.items() if before.get(key) != value
    ]
    if changed:
        raise OutputError(
            f"{output} holds a crawl with {', '.join(changed)}; give the same options, or another --output"
        )
    return record


def _write_record(output: Path, record: dict[str, Any]) -> None:
    write_whole(output / RECORD, json.dumps(record, indent=2) + "\n")


def _window(settings: CrawlSettings, until: str) -> Window:
    last = calendar.timegm(time.strptime(until, "%Y-%m-%dT%H:%M:%SZ"))
    return Window(settings.min_stars, None, _FIRST_REPOSITORY, last)


def _counts(found: Found, num_answers: int) -> dict[str, int]:
    return {
        "repositories": len(found.repositories),
        "missing": found.num_missing,
        "hidden": found.num_hidden,
        "windows": found.num_windows,
        "answers": num_answers,
    }


def _warn_of_none(language: str, found: Found) -> None:
    if not found.repositories:
        guess = "" if language in LANGUAGES else did_you_mean(language, LANGUAGES)
        log.warning("%s: no repository; is it the name that GitHub gives the language?%s", language, guess)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
