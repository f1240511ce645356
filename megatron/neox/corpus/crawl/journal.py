"""Answers on the disk, so that nothing is asked twice, whenever a crawl is killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron.neox.corpus.crawl.github import Page
from megatron.neox.corpus.line_log import LineLog


@dataclass(frozen=True)
class Question:
    """A page of a search; `attempt` counts how often the whole search was asked again."""

    search: str
    after: str | None
    attempt: int


@dataclass(frozen=True)
class Answer:
    """A page, and when it came, in UTC."""

    page: Page
    asked_at: str


class Journal(LineLog):
    """One line an answer, on the disk before it is used."""

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            InputError: a line is no answer; the file has been changed.
        """
        self._answers: dict[Question, Answer] = {}
        super().__init__(
            path, self._take, "not an answer of the crawl; remove the file to ask all of it again"
        )

    def _take(self, entry: Any) -> None:
        self._answers[Question(**entry["question"])] = Answer(Page(**entry["page"]), entry["asked_at"])

    def __len__(self) -> int:
        return len(self._answers)

    def answer(self, question: Question, ask: Callable[[Question], Page]) -> Answer:
        """What was answered before, or what `ask` now says."""
        if question not in self._answers:
            answer = Answer(ask(question), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            self.append({"question": asdict(question), **asdict(answer)})
            self._answers[question] = answer
        return self._answers[question]
