"""Evaluation of the model in training: the tasks of eval_tasks on its weights as they are, as numbers to log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from megatron.neox.config import Config
from megatron.neox.engine.build import TrainingEngine
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.live import live_model
from megatron.neox.evaluation.measurement import Measurement, Outcome
from megatron.neox.tokenizers import build_tokenizer

log = logging.getLogger(__name__)


def prepare(config: Config, grid: ProcessGrid) -> Callable[[TrainingEngine], dict[str, float | None]]:
    """Make the tasks; what comes back measures the engine's model, as `eval/TASK/METRIC`.

    Counts (`num_...`) are left out, for they are the same at each step. lm-eval's values are known to rank 0 alone.

    Raises:
        UserError: a task, its data or the vocabulary is not as it must be.
    """
    tokenizer = build_tokenizer(config.tokenizer)
    measurement = Measurement(config.evaluation)
    measurement.check_positions(config.model.max_position_embeddings)

    def measure(engine: TrainingEngine) -> dict[str, float | None]:
        with live_model(engine, vocab_size=tokenizer.vocab_size) as model:
            outcome, harness = measurement.run(model, tokenizer, grid)
        values = _values(outcome) | _harness_values(harness or {})
        _log(engine.step, values)
        return values

    return measure


def _log(step: int, values: Mapping[str, float | None]) -> None:
    """A line for each task; intervals and sums are for the monitors alone."""
    said: dict[str, list[str]] = {}
    for name, value in values.items():
        task, _, metric = name.removeprefix("eval/").rpartition("/")
        if value is not None and not metric.endswith(("_low", "_high", "_stderr", "log_likelihood")):
            said.setdefault(task, []).append(f"{metric} {value:.4f}")
    for task, metrics in said.items():
        log.info("step %d %s: %s", step, task, ", ".join(metrics))


def _values(outcome: Outcome) -> dict[str, float | None]:
    return {
        f"eval/{name}/{metric}": value
        for name, (_, result) in outcome.items()
        for metric, value in result.metrics.items()
        if not metric.startswith("num_")
    }


def _harness_values(results: Mapping[str, Any]) -> dict[str, float | None]:
    """lm-eval's `METRIC,FILTER` of tasks and groups; the filter is named where it is one."""
    found: dict[str, float | None] = {}
    for name, metrics in {**results.get("results", {}), **results.get("groups", {})}.items():
        for key, value in metrics.items():
            metric, comma, chosen = key.partition(",")
            if comma and isinstance(value, int | float):
                found[f"eval/{name}/{metric if chosen == 'none' else f'{metric}_{chosen}'}"] = float(value)
    return found
