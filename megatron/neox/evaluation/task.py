"""What a task is, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import ConfigError, InputError, did_you_mean
from megatron.neox.evaluation.code_files import NoFilesError
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.plugins import tasks
from megatron.neox.tokenizers import Tokenizer


@dataclass(frozen=True)
class TaskResult:
    """The outcome of one task."""

    metrics: Mapping[str, float | int | None]
    """By name; none where a metric has no value."""
    config: Mapping[str, Any]
    """How it was measured: whatever else would change the numbers."""
    documents: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """A row for each document, for a file of their own."""


class Task(Protocol):
    """A task, made from its options before any weights are read, so that it can refuse them early.

    The part that is registered is called with the config's section `evaluation`; its keyword-only parameters
    are the options that eval_task_options may give it.
    """

    version: int
    """Goes up when the same model would get other numbers."""

    def run(self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers) -> TaskResult:
        """Measure; called by all ranks, which get the same result."""
        ...


@runtime_checkable
class ChecksPositions(Protocol):
    """A task that can tell beforehand whether a model is long enough for it."""

    def check_positions(self, max_positions: int) -> None:
        """Refuse a model of so many positions, in tokens.

        Raises:
            ConfigError: they are too few.
        """
        ...


def build_tasks(settings: EvaluationConfig, names: Sequence[str] | None = None) -> dict[str, Task]:
    """The tasks of these names, or of eval_tasks, with their options.

    Raises:
        ConfigError: there is none, or options are given to one that is not among them.
        InputError: their data is not there; one message for all languages without a file.
        UnknownPartError: a name that no task has.
    """
    names = settings.eval_tasks if names is None else names
    if not settings.eval_tasks:
        raise ConfigError(['eval_tasks is missing: what to measure, such as ["perplexity"]'])
    for name in names:
        tasks.part(name)
    for name in settings.eval_task_options:
        if name not in names:
            raise ConfigError(
                [
                    f"eval_task_options holds options of {name}, which is not among eval_tasks "
                    f"({', '.join(names)}){did_you_mean(name, names)}"
                ]
            )
    built: dict[str, Task] = {}
    missing: list[NoFilesError] = []
    for name in names:
        try:
            built[name] = tasks.build(name, settings, options=settings.eval_task_options.get(name))
        except NoFilesError as error:
            missing.append(error)
    if missing:
        absent = [error.languages[0] for error in missing]
        found = [name for name in missing[0].found if name not in absent]
        raise InputError(str(NoFilesError(missing[0].path, absent, found)))
    return built
