"""Answers on the disk, so that nothing is asked twice, whenever a crawl is killed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from megatron.neox.corpus.crawl.github import Page
from megatron.neox.errors import InputError


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


class Journal:
    """One JSON line an answer, on the disk before it is used; half a line that a kill left is cut off."""

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            InputError: a line is no answer; the file has been changed.
        """
        self._answers: dict[Question, Answer] = {}
        path.touch()
        with path.open("rb+") as file:
            whole = 0
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                self._take(line, f"{path}:{number}")
                whole += len(line)
            file.truncate(whole)
        self._file = path.open("ab")

    def _take(self, line: bytes, where: str) -> None:
        try:
            entry: dict[str, Any] = json.loads(line)
            question = Question(**entry["question"])
            self._answers[question] = Answer(Page(**entry["page"]), entry["asked_at"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{where}: not an answer of the crawl; remove the file to ask all of it again"
            ) from error

    def __len__(self) -> int:
        return len(self._answers)

    def answer(self, question: Question, ask: Callable[[Question], Page]) -> Answer:
        """What was answered before, or what `ask` now says."""
        if question not in self._answers:
            answer = Answer(ask(question), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            entry = {"question": asdict(question), **asdict(answer)}
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._answers[question] = answer
        return self._answers[question]

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
