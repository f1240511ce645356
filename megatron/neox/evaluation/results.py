"""The results file, in lm-evaluation-harness' shape, and the table that people read."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import ConfigError
from megatron.neox.evaluation.markdown import markdown
from megatron.neox.evaluation.published.tables import NUM_TASKS, code_perplexity, human_eval_markdown
from megatron.neox.evaluation.task import Task, TaskResult
from megatron.neox.files import write_whole
from megatron.neox.generation.output import LineFile


def results_path(settings: EvaluationConfig, when: time.struct_time) -> Path:
    """eval_results_path, or PREFIX_eval_results_MONTH-DAY-YEAR-HOUR-MINUTE-SECOND.json, GPT-NeoX's name.

    Raises:
        ConfigError: it is the name that the tables get.
    """
    if settings.eval_results_path:
        path = Path(settings.eval_results_path)
        if path == path.with_suffix(".md"):
            raise ConfigError(
                [
                    f"eval_results_path {path} is where the tables go; name the JSON file: {path.with_suffix('.json')}"
                ]
            )
        return path
    prefix = f"{settings.eval_results_prefix}_" if settings.eval_results_prefix else ""
    return Path(f"{prefix}eval_results_{time.strftime('%m-%d-%Y-%H-%M-%S', when)}.json")


def write_results(
    path: Path,
    outcome: Mapping[str, tuple[Task, TaskResult]],
    *,
    config: Mapping[str, Any],
    when: time.struct_time,
    harness: Mapping[str, Any] | None = None,
) -> str:
    """Write PATH, Markdown tables beside it, and a JSONL file of documents for each task that has them.

    The results file comes last: where it is, the others are.

    Args:
        harness: what lm-eval's simple_evaluate gave; its entries stand beside those of our tasks.

    Returns:
        Which model it is, the tables, and below them how each task measured.

    Raises:
        OutputError: a file cannot be written.
    """
    theirs = dict(harness or {})
    documents = {name: result.documents for name, (_, result) in outcome.items()}
    documents |= theirs.pop("samples", {})
    document_files = {name: _write_documents(path, name, rows) for name, rows in documents.items() if rows}
    tables = _model_line(config) + _tables(outcome, theirs)
    write_whole(path.with_suffix(".md"), tables)
    content = {
        **theirs,
        "results": {name: dict(result.metrics) for name, (_, result) in outcome.items()}
        | theirs.get("results", {}),
        "configs": {name: dict(result.config) for name, (_, result) in outcome.items()}
        | theirs.get("configs", {}),
        "versions": {name: task.version for name, (task, _) in outcome.items()} | theirs.get("versions", {}),
        "config": theirs.get("config", {}) | dict(config),
        "documents": document_files,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z", when),
        "python_version": platform.python_version(),
    }
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False, default=_plain))
    return tables


def _write_documents(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The name of the JSONL file, beside the results, that now holds the rows."""
    file = path.with_name(f"{path.stem}_{name.replace('/', '_')}.jsonl")
    with LineFile(file) as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False, default=_plain))
    return file.name


def _plain(value: Any) -> Any:
    """What JSON has no word for: numpy's numbers as numbers, functions of a task's YAML as their names."""
    if hasattr(value, "item"):
        return value.item()
    return list(value) if isinstance(value, set) else str(value)


def _tables(outcome: Mapping[str, tuple[Task, TaskResult]], harness: Mapping[str, Any]) -> str:
    code = {name: result for name, (_, result) in outcome.items() if "language" in result.config}
    other = {name: (task.version, result) for name, (task, result) in outcome.items() if name not in code}
    parts = [code_table(code)] if code else []
    rows = [*_task_rows(other), *_harness_rows(harness)]
    if rows:
        parts.append(markdown([["Task", "Version", "Metric", "Value"], *rows]))
    parts += [_conditions(name, result.config) for name, (_, result) in other.items()]
    if _is_of_human_eval(other):
        parts.append(human_eval_markdown())
    return "\n".join(parts) + _shared_conditions(code)


def _model_line(config: Mapping[str, Any]) -> str:
    """Where the weights are from and what they were computed in: a table that is passed on says of what it is."""
    where = config.get("path") or config.get("checkpoint")
    if where is None:
        return ""
    revision = f", revision {config['revision']}" if config.get("revision") else ""
    return f"Model: {where}{revision} ({config['model']}, {config['precision']})\n\n"


def _is_of_human_eval(results: Mapping[str, tuple[int, TaskResult]]) -> bool:
    """Whether all of HumanEval was measured, so that published figures stand beside ours."""
    return any(
        name == "human_eval" and result.metrics.get("num_tasks") == NUM_TASKS
        for name, (_, result) in results.items()
    )


def code_table(results: Mapping[str, TaskResult]) -> str:
    """PolyCoder's table of perplexities, extended, a language a row; `published` is PolyCoder's own figure."""
    rows = [
        ["Language", "Perplexity", "95% CI", "bits/byte", "95% CI", "files", "seen in training", "published"]
    ]
    for result in results.values():
        metrics, language = result.metrics, str(result.config["language"])
        seen = metrics["num_files_seen_in_training"]
        rows.append(
            [
                language,
                _short(metrics["pygments_perplexity"]),
                _range(metrics, "pygments_perplexity"),
                _short(metrics["bits_per_byte"]),
                _range(metrics, "bits_per_byte"),
                _shown(metrics["num_files"]),
                "not checked" if seen is None else str(seen),
                _shown(code_perplexity().rows.get(language)),
            ]
        )
    return markdown(rows)


def _range(metrics: Mapping[str, float | int | None], name: str) -> str:
    low, high = metrics[f"{name}_ci95_low"], metrics[f"{name}_ci95_high"]
    return "-" if low is None or high is None else f"{_short(low)} to {_short(high)}"


def markdown_table(outcome: Mapping[str, tuple[int, TaskResult]]) -> str:
    """Every metric of every task, one a row, with its interval where it has one."""
    return markdown([["Task", "Version", "Metric", "Value"], *_task_rows(outcome)])


def _task_rows(outcome: Mapping[str, tuple[int, TaskResult]]) -> list[list[str]]:
    return [
        [name, str(version), metric, _shown(value) + _interval(result.metrics, metric)]
        for name, (version, result) in outcome.items()
        for metric, value in result.metrics.items()
        if not _is_end(metric, result.metrics)
    ]


def _is_end(metric: str, metrics: Mapping[str, float | int | None]) -> bool:
    """Whether it is the end of another metric's interval: METRIC_low, METRIC_ci95_high."""
    of, _, end = metric.rpartition("_")
    return end in ("low", "high") and of.removesuffix("_ci95") in metrics


def _interval(metrics: Mapping[str, float | int | None], name: str) -> str:
    for kind in ("", "_ci95"):
        low, high = metrics.get(f"{name}{kind}_low"), metrics.get(f"{name}{kind}_high")
        if low is not None and high is not None:
            return f" ({_shown(low)} to {_shown(high)})"
    return ""


def _harness_rows(harness: Mapping[str, Any]) -> list[list[str]]:
    """lm-eval's `METRIC,FILTER` and `METRIC_stderr,FILTER` as rows: the value and its standard error."""
    rows: list[list[str]] = []
    for name, metrics in {**harness.get("results", {}), **harness.get("groups", {})}.items():
        version = str(harness.get("versions", {}).get(name, "-"))
        for key, value in metrics.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            error = metrics.get(f"{metric}_stderr,{chosen}")
            shown = _shown(value) if isinstance(value, int | float) else str(value)
            if isinstance(error, int | float):
                shown += f" ± {error:.4f}"
            rows.append([name, version, metric if chosen == "none" else f"{metric} ({chosen})", shown])
    return rows


def _shared_conditions(results: Mapping[str, TaskResult]) -> str:
    """How the tasks of a language each measured: what is the same for all once, the rest language by language."""
    if not results:
        return ""
    configs = [result.config for result in results.values()]
    same = {key: value for key, value in configs[0].items() if all(c.get(key) == value for c in configs)}
    differing = {
        key: "; ".join(
            f"{c['language']}: {_written(c[key])}" for c in configs if c[key] not in (None, {}, [])
        )
        for key in configs[0]
        if key not in same and key != "language"
    }
    return "\n" + _conditions(", ".join(results), same | differing)


def _conditions(name: str, config: Mapping[str, Any]) -> str:
    """How a task measured, as a list; what was not set is left out."""
    told = [
        f"- {key}: {_written(value)}\n" for key, value in config.items() if value not in (None, "", {}, [])
    ]
    verb = "were" if ", " in name else "was"
    return "".join([f"How {name} {verb} measured:\n\n", *told])


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _short(value: float | None) -> str:
    """Four places, as published perplexities have; of thousands and more, four digits."""
    return _shown(value) if value is None or value < 1000 else f"{value:.4g}"
