"""What a report is made of: runs, verdicts and results, told apart by what stands in the files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron.neox.errors import InputError
from megatron.neox.evaluation.humaneval.json_lines import read_objects
from megatron.neox.evaluation.humaneval.summary import Counts, read_counts
from megatron.neox.reports.metrics import Metrics


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
    configs, results = found.get("configs", {}), found["results"]
    languages = {
        configs[task]["language"]: metrics
        for task, metrics in results.items()
        if "language" in configs.get(task, {}) and "bits_per_byte" in metrics
    }
    samples = found.get("documents", {}).get("human_eval")
    if not languages and not samples:
        raise InputError(
            f"{path} has results of {', '.join(results) or 'nothing'}, and only code_* and human_eval are drawn"
        )
    if languages:
        _refuse_second(name, inputs.languages, "results")
        inputs.languages[name] = languages
    if samples:
        inputs.verdicts.append(_verdicts(path.with_name(samples), name, model))


def _verdicts(path: Path, name: str, model: str) -> Verdicts:
    counts = read_counts(path)
    told = {row.get("temperature") for _, row in read_objects(path, "results file")}
    value = told.pop() if len(told) == 1 else None
    temperature = float(value) if isinstance(value, int | float) else None
    label = name if temperature is None else f"{name}, T {temperature:g}"
    return Verdicts(label, model, counts, temperature)


def _refuse_second(name: str, held: Mapping[str, object], kind: str) -> None:
    if name in held:
        raise InputError(f"two {kind} are named {name}; give each a name of its own: NAME=PATH")
