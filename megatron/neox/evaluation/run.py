"""What evaluate.py does: run the tasks of the config on a trained model, and write what they found."""

from __future__ import annotations

import logging
import sys
import time

from megatron.neox.config import Config
from megatron.neox.engine.distributed import setup_logging
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.evaluation.evaluated import load_evaluated
from megatron.neox.evaluation.measurement import Measurement
from megatron.neox.evaluation.results import results_path, write_results
from megatron.neox.generation.output import refuse_unwritable

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
        measurement = Measurement(settings)
        evaluated = load_evaluated(config, grid)
        outcome, measured = measurement.run(evaluated.model, evaluated.tokenizer, grid)
        if grid.is_main:
            described = {**evaluated.described, "batch_size": settings.eval_batch_size}
            tables = write_results(path, outcome, config=described, when=when, harness=measured)
            sys.stdout.write(tables)
            log.info("wrote %s", path)
    return 0
