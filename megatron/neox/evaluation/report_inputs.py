"""What a report is made of: runs, verdicts and results, told apart by what stands in the files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron.neox.errors import InputError
from megatron.neox.evaluation.humaneval.json_lines import read_objects
from megatron.neox.evaluation.humaneval.summary import Counts, read_counts
from megatron.neox.evaluation.languages import LANGUAGES
from megatron.neox.reports.metrics import Metrics

MEASURES = ("bits_per_byte", "pygments_perplexity")
"""What is drawn by language, with the ends of its intervals."""


@dataclass(frozen=True)
class Verdicts:
    """Samples and passed samples by task, of one file."""

    label: str
    model: str
    """The name that was given; "" where none was."""
    counts: Counts
    temperature: float | None
    """None where the file does not tell, or tells several."""


@dataclass
class Inputs:
    """All that was given, by kind."""

    runs: dict[str, Metrics] = field(default_factory=dict)
    verdicts: list[Verdicts] = field(default_factory=list)
    languages: dict[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Metrics by model, then by language."""


def read_inputs(words: Sequence[str]) -> Inputs:
    """Files and folders, or NAME=PATH.

    A name may stand before several files of verdicts, of one model at several temperatures.

    Raises:
        InputError: one is absent, or none of the kinds, or two runs or results have one name.
    """
    inputs = Inputs()
    for word in words:
        name, separator, path = word.partition("=")
        if separator and not Path(word).exists():
            _take(inputs, Path(path), name, model=name)
        else:
            _take(inputs, Path(word), word, model="")
    return inputs


def _take(inputs: Inputs, path: Path, name: str, *, model: str) -> None:
    found = {"step": 0} if path.is_dir() else _first_object(path)
    if "step" in found:
        _refuse_second(name, inputs.runs, "runs")
        inputs.runs[name] = Metrics(path)
    elif "task_id" in found and "passed" in found:
        inputs.verdicts.append(_verdicts(path, name, model))
    elif isinstance(found.get("results"), dict):
        _take_results(inputs, path, found, name, model)
    else:
        raise InputError(
            f"{path} is nothing that is drawn: give a run's folder or its metrics.jsonl, verdicts of "
            "tools/human_eval.py (..._results.jsonl), or results of evaluate.py (.json)"
        )


def _first_object(path: Path) -> dict[str, Any]:
    """The whole file where it is one JSON object, else its first line; an empty one where neither is."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path} cannot be read: {why}") from None
    for text in (content, content.partition("\n")[0]):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _take_results(inputs: Inputs, path: Path, found: Mapping[str, Any], name: str, model: str) -> None:
    results, configs, documents = (_objects(path, found, key) for key in ("results", "configs", "documents"))
    languages = {
        language: _bars(path, task, metrics)
        for task, metrics in results.items()
        if (language := _known_language(configs.get(task))) and _is_of_code(metrics)
    }
    samples = documents.get("human_eval")
    if not languages and not samples:
        raise InputError(
            f"{path} has results of {', '.join(results) or 'nothing'}, and only code_* and human_eval are drawn"
        )
    if languages:
        _refuse_second(name, inputs.languages, "results")
        inputs.languages[name] = languages
    if samples:
        inputs.verdicts.append(_verdicts(path.with_name(str(samples)), name, model))


def _objects(path: Path, found: Mapping[str, Any], key: str) -> dict[str, Any]:
    held = found.get(key) or {}
    if not isinstance(held, dict):
        raise InputError(f"{path} is no results file of evaluate.py: {key!r} is no object")
    return held


def _known_language(config: object) -> str | None:
    language = config.get("language") if isinstance(config, dict) else None
    return language if language in LANGUAGES.values() else None


def _is_of_code(metrics: object) -> bool:
    return isinstance(metrics, dict) and "bits_per_byte" in metrics


def _bars(path: Path, task: str, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics that are drawn; what is beyond every number is not (a null)."""
    drawn = {key: value for key, value in metrics.items() if key.startswith(MEASURES)}
    for key, value in drawn.items():
        if not (value is None or isinstance(value, int | float)):
            raise InputError(f"{path}: {key} of {task} is {value!r}, no number")
    return {key: value for key, value in drawn.items() if value is not None and math.isfinite(value)}


def _verdicts(path: Path, name: str, model: str) -> Verdicts:
    counts = read_counts(path)
    told = [row.get("temperature") for _, row in read_objects(path, "results file")]
    numbers = {float(value) for value in told if isinstance(value, int | float)}
    is_one = len(numbers) == 1 and all(isinstance(value, int | float) for value in told)
    temperature = numbers.pop() if is_one else None
    label = name if temperature is None else f"{name}, T {temperature:g}"
    return Verdicts(label, model, counts, temperature)


def _refuse_second(name: str, held: Mapping[str, object], kind: str) -> None:
    if name in held:
        raise InputError(f"two {kind} are named {name}; give each a name of its own: NAME=PATH")
