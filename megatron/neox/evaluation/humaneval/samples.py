"""Samples to be scored, of files that generation wrote and of files that openai/human-eval reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron.neox.errors import InputError, did_you_mean
from megatron.neox.evaluation.humaneval.json_lines import read_objects
from megatron.neox.evaluation.humaneval.problems import Problem

_SHOWN = 5
# Of a record, what tells how its text was made.
_SETTINGS = ("temperature", "top_p", "top_k", "maximum_tokens", "seed", "model")


@dataclass(frozen=True)
class Sample:
    """One completion of one task."""

    task_id: str
    number: int
    """Among the samples of its task, from 0."""
    context: str | None
    """The prompt as the model got it; none where the file does not say."""
    completion: str | None
    """None where the document ended at once: an empty completion."""
    record: Mapping[str, Any] = field(repr=False)
    """The line of the file."""

    @property
    def text(self) -> str:
        """What follows the prompt."""
        return self.completion or ""


def read_samples(path: Path, problems: Mapping[str, Problem], num_samples: int | None = None) -> list[Sample]:
    """Samples of all tasks, task by task.

    Two forms, known by the first line: `{context, text, ...}`, num_samples lines of each task in the order of the
    tasks, as generation writes them; and `{task_id, completion}` in any order.

    Args:
        path: the file.
        problems: the tasks, each of which must have samples.
        num_samples: samples of each task; none counts them.

    Raises:
        InputError: a line is damaged or lacks its text, a task has no samples, or their number is another.
    """
    lines = list(read_objects(path, "samples file"))
    place, first = lines[0]
    if "task_id" in first and "context" not in first:
        return _by_task_id(path, lines, problems, num_samples)
    if "context" in first:
        return _by_position(path, lines, problems, num_samples)
    found = ", ".join(map(repr, first)) or "nothing"
    raise InputError(
        f"{place}: a sample has context and text, or task_id and completion; this line has {found}"
    )


def _by_position(
    path: Path,
    lines: Sequence[tuple[str, dict[str, Any]]],
    problems: Mapping[str, Problem],
    num_samples: int | None,
) -> list[Sample]:
    each, rest = divmod(len(lines), len(problems))
    wanted = num_samples or each
    if rest or wanted != each:
        told = f"{wanted} samples of each of {len(problems)} tasks make {wanted * len(problems)} lines"
        hint = (
            "a task's samples are incomplete: generate them again"
            if rest
            else f"did you mean --num-samples {each}?"
        )
        if not wanted:
            told = f"one sample of each of {len(problems)} tasks makes {len(problems)} lines"
        raise InputError(f"{path} has {len(lines)} lines, and {told}; {hint}")
    tasks = [problem for problem in problems.values() for _ in range(each)]
    samples = []
    for position, ((place, record), problem) in enumerate(zip(lines, tasks)):
        if record.get("context") not in (problem.prompt, problem.prompt.strip()):
            raise InputError(
                f"{place}: the context is not the prompt of {problem.task_id}; "
                f"the file must hold {each} samples of each task, in the order of the tasks"
            )
        text = _text(record, "text", place, may_be_none=True)
        samples.append(Sample(problem.task_id, position % each, record["context"], text, record))
    return samples


def _by_task_id(
    path: Path,
    lines: Sequence[tuple[str, dict[str, Any]]],
    problems: Mapping[str, Problem],
    num_samples: int | None,
) -> list[Sample]:
    counts: Counter[str] = Counter()
    samples: list[Sample] = []
    for place, record in lines:
        name = record.get("task_id")
        if not isinstance(name, str) or name not in problems:
            raise InputError(f"{place}: no task is named {name!r}{did_you_mean(str(name), problems)}")
        text = _text(record, "completion", place, may_be_none=False)
        samples.append(Sample(name, counts[name], None, text, record))
        counts[name] += 1
    if missing := [name for name in problems if not counts[name]]:
        raise InputError(f"{path} has no sample of {_some(missing)}; every task must be attempted")
    if num_samples and (others := [name for name in problems if counts[name] != num_samples]):
        raise InputError(
            f"{path} has {counts[others[0]]} and not {num_samples} samples of {_some(others)}; "
            "leave out --num-samples to score them as they are"
        )
    order = {name: position for position, name in enumerate(problems)}
    return sorted(samples, key=lambda sample: (order[sample.task_id], sample.number))


def _text(record: Mapping[str, Any], key: str, place: str, *, may_be_none: bool) -> str | None:
    if key not in record:
        raise InputError(f"{place}: the sample has no {key!r}; it has {', '.join(map(repr, record))}")
    text = record[key]
    if not (isinstance(text, str) or (text is None and may_be_none)):
        raise InputError(f"{place}: {key!r} is {type(text).__name__}, not text")
    return text


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more tasks" if more > 0 else "")


def sampling_of(sample: Sample) -> dict[str, Any]:
    """The settings that its record tells."""
    return {name: value for name in _SETTINGS if (value := sample.record.get(name)) is not None}


def told_settings(samples: Sequence[Sample]) -> dict[str, str]:
    """How the samples were made, as far as their records tell: one value, or the range of several."""
    told: dict[str, str] = {}
    for name in _SETTINGS:
        values = {str(value) for sample in samples if (value := sample.record.get(name)) is not None}
        if values:
            told[name] = values.pop() if len(values) == 1 else f"{len(values)} different ones"
    lengths = [length for sample in samples if isinstance(length := sample.record.get("length"), int)]
    if lengths:
        told["tokens of a sample"] = f"{sum(lengths) / len(lengths):.1f} on average, {max(lengths)} at most"
    ends = [end for sample in samples if isinstance(end := sample.record.get("finished"), bool)]
    if ends:
        told["ended by themselves"] = f"{sum(ends)} of {len(ends)}"
    return told
