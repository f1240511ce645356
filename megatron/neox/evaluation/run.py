"""What evaluate.py does: run the tasks of the config on a trained model, and write what they found."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from megatron.neox.config import Config
from megatron.neox.engine.distributed import setup_logging
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.inference import InferenceModel, load_model
from megatron.neox.evaluation.results import results_path, write_results
from megatron.neox.evaluation.task import Task, TaskResult, build_tasks
from megatron.neox.generation.output import refuse_unwritable
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import Tokenizer, build_tokenizer

log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Evaluate as the config's section `evaluation` says; every rank calls this.

    Raises:
        UserError: a task, its data, the vocabulary, the checkpoint or the output is not as it must be.
    """
    when = time.localtime()
    with ProcessGrid.build(config.parallelism, fold_pipeline=True) as grid:
        setup_logging(grid.rank, config.logging.log_dir)
        path = results_path(config.evaluation, when)
        if grid.is_main:
            refuse_unwritable(path)  # before hours of work, not after
        chosen = build_tasks(config.evaluation)
        tokenizer = build_tokenizer(config.tokenizer)
        model = load_model(config, grid, tokenizer=tokenizer)
        workers = Workers(grid.data_rank, grid.data_size, grid.groups["data"])
        outcome: dict[str, tuple[Task, TaskResult]] = {}
        for name, task in chosen.items():
            log.info("task %s", name)
            outcome[name] = (task, task.run(model, tokenizer, workers))
        if grid.is_main:
            table = write_results(path, outcome, config=_described(config, model, tokenizer), when=when)
            sys.stdout.write(table)
            log.info("wrote %s", path)
    return 0


def _described(config: Config, model: InferenceModel, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "model": "neox",
        "checkpoint": str(model.checkpoint),
        "precision": config.precision.dtype,
        "batch_size": config.evaluation.eval_batch_size,
        "tokenizer": tokenizer.fingerprint(),
        "architecture": config.model.model_dump(mode="json"),
    }
