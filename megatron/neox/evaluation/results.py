"""The results file, in lm-evaluation-harness' shape, and the table that people read."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron.neox.config import EvaluationConfig
from megatron.neox.evaluation.task import Task, TaskResult
from megatron.neox.files import write_whole
from megatron.neox.generation.output import LineFile


def results_path(settings: EvaluationConfig, when: time.struct_time) -> Path:
    """eval_results_path, or PREFIX_eval_results_MONTH-DAY-YEAR-HOUR-MINUTE-SECOND.json, GPT-NeoX's name."""
    if settings.eval_results_path:
        return Path(settings.eval_results_path)
    prefix = f"{settings.eval_results_prefix}_" if settings.eval_results_prefix else ""
    return Path(f"{prefix}eval_results_{time.strftime('%m-%d-%Y-%H-%M-%S', when)}.json")


def write_results(
    path: Path,
    outcome: Mapping[str, tuple[Task, TaskResult]],
    *,
    config: Mapping[str, Any],
    when: time.struct_time,
) -> str:
    """Write PATH, a Markdown table beside it, and a JSONL file of documents for each task that has them.

    The results file comes last: where it is, the others are.

    Returns:
        The table, and below it how each task measured.

    Raises:
        OutputError: a file cannot be written.
    """
    document_files: dict[str, str] = {}
    for name, (_, result) in outcome.items():
        if result.documents:
            file = path.with_name(f"{path.stem}_{name}.jsonl")
            document_files[name] = file.name
            with LineFile(file) as lines:
                for row in result.documents:
                    lines.write(json.dumps(row, ensure_ascii=False))
    table = markdown_table({name: (task.version, result) for name, (task, result) in outcome.items()})
    table += "".join(_conditions(name, result) for name, (_, result) in outcome.items())
    write_whole(path.with_suffix(".md"), table)
    content = {
        "results": {name: dict(result.metrics) for name, (_, result) in outcome.items()},
        "configs": {name: dict(result.config) for name, (_, result) in outcome.items()},
        "versions": {name: task.version for name, (task, _) in outcome.items()},
        "config": dict(config),
        "documents": document_files,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z", when),
        "python_version": platform.python_version(),
    }
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False))
    return table


def markdown_table(outcome: Mapping[str, tuple[int, TaskResult]]) -> str:
    """Every metric of every task, one a row."""
    rows = [["Task", "Version", "Metric", "Value"]]
    for name, (version, result) in outcome.items():
        rows += [[name, str(version), metric, _shown(value)] for metric, value in result.metrics.items()]
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ["-" * width for width in widths[:-1]] + ["-" * (widths[-1] - 1) + ":"]
    lines = [_line(rows[0], widths), _line(rule, widths), *(_line(row, widths) for row in rows[1:])]
    return "\n".join(lines) + "\n"


def _conditions(name: str, result: TaskResult) -> str:
    """How a task measured, as a list; what was not set is left out."""
    told = [
        f"- {key}: {value if isinstance(value, str) else json.dumps(value)}\n"
        for key, value in result.config.items()
        if value not in (None, {}, [])
    ]
    return "".join([f"\nHow {name} was measured:\n\n", *told])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths)]
    return f"| {' | '.join([*padded, cells[-1].rjust(widths[-1])])} |"


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
