"""The tasks of a config, made before any weights are read and run on a model: what all doors that evaluate share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.neox.config import EvaluationConfig
from megatron.neox.engine.agreement import on_main_rank
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.errors import ConfigError
from megatron.neox.evaluation.contamination import find_seen
from megatron.neox.evaluation.harness import Harness
from megatron.neox.evaluation.task import ChecksPositions, Task, TaskResult, build_tasks
from megatron.neox.evaluation.tasks.code_perplexity import CodePerplexity
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)

Outcome = dict[str, tuple[Task, TaskResult]]
"""Our tasks by name, and what they found."""


class Measurement:
    """eval_tasks, ours and lm-eval's, ready to be run as often as wanted; every rank has one.

    Raises:
        UserError: a task or its data is not as it must be.
    """

    def __init__(self, settings: EvaluationConfig) -> None:
        self._settings = settings
        self._harness = Harness(settings)
        names, self._harness_names = on_main_rank(self._harness.choose)
        self._tasks = build_tasks(settings, names)
        _mark_seen(settings, self._tasks)
        on_main_rank(lambda: self._harness.load(self._harness_names))

    def check_positions(self, max_positions: int) -> None:
        """Refuse a model that is too short for a task, before it is trained.

        Raises:
            ConfigError: it has too few positions.
        """
        for task in self._tasks.values():
            if isinstance(task, ChecksPositions):
                task.check_positions(max_positions)

    def run(
        self, model: LanguageModel, tokenizer: Tokenizer, grid: ProcessGrid
    ) -> tuple[Outcome, dict[str, Any] | None]:
        """What our tasks found, on all ranks, and what lm-eval's did, on rank 0; every rank calls this.

        Raises:
            UserError: the model cannot do what a task asks.
            NeoXError: the model's logits are not numbers.
        """
        workers = Workers(grid.data_rank, grid.data_size, grid.groups["data"])
        outcome: Outcome = {}
        for name, task in self._tasks.items():
            log.info("task %s", name)
            outcome[name] = (task, task.run(model, tokenizer, workers))
        if not self._harness_names:
            return outcome, None
        log.info("lm-eval: %s", ", ".join(self._harness_names))
        return outcome, self._run_harness(model, tokenizer, workers, grid)

    def _run_harness(
        self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers, grid: ProcessGrid
    ) -> dict[str, Any] | None:
        """lm-eval's results on rank 0; the other ranks compute along, and have none."""
        from megatron.neox.evaluation.harness_model import SharedWork

        work = SharedWork(model, tokenizer, workers, self._settings, num_ranks=grid.world_size)
        if not grid.is_main:
            work.follow()
            return None
        try:
            return self._harness.run(work)
        finally:
            work.dismiss()


def _mark_seen(settings: EvaluationConfig, chosen: Mapping[str, Task]) -> None:
    """Look every file of the code tasks up in the index of training files, in one pass over it."""
    index = settings.eval_contamination_index
    code = [task for task in chosen.values() if isinstance(task, CodePerplexity)]
    if index is None:
        return
    if not code:
        raise ConfigError(["eval_contamination_index is given, and none of eval_tasks is a code_* task"])
    seen = on_main_rank(lambda: find_seen(Path(index), {d for task in code for d in task.hashes}))
    for task in code:
        task.mark_seen(seen)
