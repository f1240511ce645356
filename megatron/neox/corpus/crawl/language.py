"""All repositories of one language, most stars first, as far as a limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from megatron.neox.corpus.crawl.github import GitHub, Page
from megatron.neox.corpus.crawl.journal import Answer, Journal, Question
from megatron.neox.corpus.crawl.windows import MOST_RESULTS, Window
from megatron.neox.corpus.repositories import Repository, by_stars, repository_of
from megatron.neox.errors import InputError

log = logging.getLogger(__name__)

_ATTEMPTS = 3


@dataclass
class Found:
    """What came of a language: `num_missing` results were counted by GitHub, and never handed out."""

    repositories: list[Repository]
    num_windows: int = 0
    num_missing: int = 0
    num_hidden: int = 0


class LanguageSearch:
    """Walks the windows of one language; with the same answers in the journal it finds the same."""

    def __init__(
        self, github: GitHub, journal: Journal, *, language: str, pushed_since: str, wait_seconds: float
    ) -> None:
        self._github, self._journal, self._wait_seconds = github, journal, wait_seconds
        self._language, self._pushed_since = language, pushed_since

    def run(self, whole: Window, limit: int) -> Found:
        """The `limit` repositories with most stars in a window, those of as many by name.

        Raises:
            InputError, ResourceError: as `GitHub.page`.
        """
        found, by_id = Found([]), dict[Any, Repository]()
        last_stars: int | None = None  # of a window of one number of stars, done in parts
        windows = [whole]
        while windows:
            window = windows.pop()
            if len(by_id) >= limit and window.most_stars != last_stars:
                break
            entries = self._entries(window, found)
            if entries is None:
                more, less = window.halves() or (window, window)
                windows += [less, more]
                continue
            found.num_windows += 1
            last_stars = window.fewest_stars
            for entry in entries:
                # One that moved between windows while they were asked stands where it was first seen.
                by_id.setdefault(entry.id or entry.name, entry)
            log.info("%s: %d repositories, down to %d stars", self._language, len(by_id), window.fewest_stars)
        found.repositories = by_stars(by_id.values())[:limit]
        return found

    def _entries(self, window: Window, found: Found) -> list[Repository] | None:
        """The repositories of a window, None where it has to be divided; asked again where some are missing."""
        search = window.search(self._language, self._pushed_since)
        by_id: dict[Any, Repository | None] = {}  # None is a fork, or what could not name a folder
        num_hidden = total = 0
        for attempt in range(_ATTEMPTS):
            num_hidden = 0
            for answer in self._answers(search, attempt, can_divide=window.halves() is not None):
                total = answer.page.total
                if total > MOST_RESULTS and window.halves():
                    return None
                num_hidden += answer.page.num_hidden
                for node in answer.page.nodes:
                    entry = self._repository(node, search, answer.asked_at)
                    by_id.setdefault(node.get("databaseId") or node["nameWithOwner"], entry)
            if len(by_id) + num_hidden >= min(total, MOST_RESULTS):
                break
        missing = max(0, total - len(by_id) - num_hidden)
        if missing:
            log.warning(
                "%s: %d of %d results were not handed out: %s", self._language, missing, total, search
            )
        found.num_missing += missing
        found.num_hidden += num_hidden
        return [entry for entry in by_id.values() if entry is not None]

    def _answers(self, search: str, attempt: int, *, can_divide: bool) -> Iterator[Answer]:
        after: str | None = None
        seen: set[str | None] = set()
        while after not in seen:
            seen.add(after)
            answer = self._journal.answer(
                Question(search, after, attempt), lambda question: self._ask(question, can_divide)
            )
            yield answer
            after = answer.page.following
            if after is None:
                return

    def _ask(self, question: Question, can_divide: bool) -> Page:
        if question.attempt and question.after is None:
            time.sleep(self._wait_seconds * 2**question.attempt)
        page = self._github.page(question.search, question.after)
        # Of a window that will be divided only the number matters.
        return replace(page, nodes=[]) if page.total > MOST_RESULTS and can_divide else page

    def _repository(self, node: dict[str, Any], search: str, asked_at: str) -> Repository | None:
        if node.get("isFork"):
            return None
        row = {
            "language": self._language,
            "name": node.get("nameWithOwner"),
            "url": node.get("url"),
            "stars": node.get("stargazerCount"),
            "license": _inner(node, "licenseInfo", "spdxId"),
            "commit": _inner(node, "defaultBranchRef", "target", "oid"),
            "created_at": node.get("createdAt"),
            "pushed_at": node.get("pushedAt"),
            "disk_kilobytes": node.get("diskUsage"),
            "is_archived": node.get("isArchived"),
            "primary_language": _inner(node, "primaryLanguage", "name"),
            "id": node.get("databaseId"),
            "query": search,
            "asked_at": asked_at,
        }
        try:
            return repository_of(row, f"left out: an answer to {search}")
        except InputError as error:
            log.warning("%s", error)
            return None


def _inner(node: Any, *keys: str) -> Any:
    """A nested value, None where any part of the way is null."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node
