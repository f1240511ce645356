"""What evaluate.py does: run the tasks of the config on a trained model, and write what they found."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.neox.config import Config, EvaluationConfig
from megatron.neox.engine.agreement import on_main_rank
from megatron.neox.engine.distributed import setup_logging
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.errors import ConfigError
from megatron.neox.evaluation.contamination import find_seen
from megatron.neox.evaluation.evaluated import load_evaluated
from megatron.neox.evaluation.harness import Harness
from megatron.neox.evaluation.results import results_path, write_results
from megatron.neox.evaluation.task import Task, TaskResult, build_tasks
from megatron.neox.evaluation.tasks.code_perplexity import CodePerplexity
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.output import refuse_unwritable
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Evaluate as the config's section `evaluation` says; every rank calls this.

    Raises:
        UserError: a task, its data, the vocabulary, the checkpoint or the output is not as it must be.
    """
    when = time.localtime()
    settings = config.evaluation
    with ProcessGrid.build(config.parallelism, fold_pipeline=True) as grid:
        setup_logging(grid.rank, config.logging.log_dir)
        path = results_path(settings, when)
        if grid.is_main:
            refuse_unwritable(path)  # before hours of work, not after
        harness = Harness(settings)
        names, harness_names = on_main_rank(harness.choose)
        chosen = build_tasks(settings, names)
        _mark_seen(config, chosen)
        on_main_rank(lambda: harness.load(harness_names))
        evaluated = load_evaluated(config, grid)
        model, tokenizer = evaluated.model, evaluated.tokenizer
        workers = Workers(grid.data_rank, grid.data_size, grid.groups["data"])
        outcome: dict[str, tuple[Task, TaskResult]] = {}
        for name, task in chosen.items():
            log.info("task %s", name)
            outcome[name] = (task, task.run(model, tokenizer, workers))
        measured = None
        if harness_names:
            log.info("lm-eval: %s", ", ".join(harness_names))
            measured = _run_harness(harness, model, tokenizer, workers, settings, grid)
        if grid.is_main:
            described = {**evaluated.described, "batch_size": settings.eval_batch_size}
            tables = write_results(path, outcome, config=described, when=when, harness=measured)
            sys.stdout.write(tables)
            log.info("wrote %s", path)
    return 0


def _run_harness(
    harness: Harness,
    model: LanguageModel,
    tokenizer: Tokenizer,
    workers: Workers,
    settings: EvaluationConfig,
    grid: ProcessGrid,
) -> dict[str, Any] | None:
    """lm-eval's results on rank 0; the other ranks compute along, and have none."""
    from megatron.neox.evaluation.harness_model import SharedWork

    work = SharedWork(model, tokenizer, workers, settings, num_ranks=grid.world_size)
    if not grid.is_main:
        work.follow()
        return None
    try:
        return harness.run(work)
    finally:
        work.dismiss()


def _mark_seen(config: Config, chosen: Mapping[str, Task]) -> None:
    """Look every file of the code tasks up in the index of training files, in one pass over it."""
    index = config.evaluation.eval_contamination_index
    code = [task for task in chosen.values() if isinstance(task, CodePerplexity)]
    if index is None:
        return
    if not code:
        raise ConfigError(["eval_contamination_index is given, and none of eval_tasks is a code_* task"])
    seen = on_main_rank(lambda: find_seen(Path(index), {d for task in code for d in task.hashes}))
    for task in code:
        task.mark_seen(seen)
