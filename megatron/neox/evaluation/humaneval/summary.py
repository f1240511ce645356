"""What verdicts come to: pass@k with intervals, of one file and between two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron.neox.errors import InputError
from megatron.neox.evaluation.humaneval.json_lines import read_objects
from megatron.neox.evaluation.intervals import Estimate, mean_interval, paired_difference
from megatron.neox.evaluation.pass_at_k import DEFAULT_KS, pass_at_k_by_task

Counts = dict[str, tuple[int, int]]


def count(rows: Iterable[Mapping[str, Any]]) -> Counts:
    """Samples and passed samples by task."""
    samples: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for row in rows:
        samples[row["task_id"]] += 1
        passed[row["task_id"]] += row["passed"]
    return {name: (number, passed[name]) for name, number in samples.items()}


def read_counts(path: Path) -> Counts:
    """Those of a results file, ours or openai/human-eval's.

    Raises:
        InputError: a line lacks task_id or passed.
    """
    rows = []
    for place, row in read_objects(path, "results file"):
        if not (isinstance(row.get("task_id"), str) and isinstance(row.get("passed"), bool)):
            raise InputError(
                f"{place}: a result has task_id and passed (true or false); score the samples first"
            )
        rows.append(row)
    return count(rows)


def choose_ks(counts: Counts, wanted: Sequence[int] | None) -> tuple[list[int], str]:
    """The k that can be told from the samples, and a line about those that cannot.

    Raises:
        InputError: a k that was asked for needs more samples than a task has.
    """
    fewest = min(number for number, _ in counts.values())
    task = next(name for name, (number, _) in counts.items() if number == fewest)
    too_large = [k for k in wanted or DEFAULT_KS if k > fewest]
    told = (
        f"{_names(too_large)} cannot be told: {task} has {fewest} sample{'s' * (fewest != 1)}"
        if too_large
        else ""
    )
    if wanted and too_large:
        raise InputError(f"{told}; ask for k up to {fewest}, or generate more samples")
    return [k for k in wanted or DEFAULT_KS if k <= fewest], told


def score(counts: Counts, ks: Sequence[int], groups: Mapping[str, str] | None = None) -> dict[int, Estimate]:
    """pass@k by k, the mean over tasks with its 95% interval; tasks of one group are drawn together."""
    together = None if groups is None else [groups[name] for name in counts]
    return {k: mean_interval(pass_at_k_by_task([*counts.values()], k), groups=together) for k in ks}


def compare(ours: Counts, theirs: Counts, wanted: Sequence[int] | None) -> tuple[dict[int, Estimate], str]:
    """Difference of pass@k by k, paired by task, with its interval; and a line about k that cannot be told.

    Raises:
        InputError: the files are of other tasks, or a k was asked for that cannot be told.
    """
    if different := sorted(set(ours) ^ set(theirs)):
        shown = ", ".join(different[:5]) + (f" and {len(different) - 5} more" if len(different) > 5 else "")
        raise InputError(
            f"only one of the two files has results of {shown}; a paired comparison needs the same tasks"
        )
    fewest = {name: (min(ours[name][0], theirs[name][0]), 0) for name in ours}
    ks, told = choose_ks(fewest, wanted)
    difference = {
        k: paired_difference(
            pass_at_k_by_task([*ours.values()], k), pass_at_k_by_task([theirs[name] for name in ours], k)
        )
        for k in ks
    }
    return difference, told


def score_table(estimates: Mapping[int, Estimate]) -> str:
    """A line for each k, in percent."""
    return "".join(
        f"  {f'pass@{k}':<9}{100 * found.mean:6.2f}%   95% interval {100 * found.low:.2f}% to {100 * found.high:.2f}%\n"
        for k, found in estimates.items()
    )


def difference_table(estimates: Mapping[int, Estimate]) -> str:
    """A line for each k, in points of a percent, with what it allows to say."""
    lines = []
    for k, found in estimates.items():
        says = (
            "A is better" if found.low > 0 else "B is better" if found.high < 0 else "no difference is shown"
        )
        lines.append(
            f"  {f'pass@{k}':<9}{100 * found.mean:+6.2f}   "
            f"95% interval {100 * found.low:+.2f} to {100 * found.high:+.2f}: {says}\n"
        )
    return "".join(lines)


def _names(ks: Sequence[int]) -> str:
    return " and ".join(f"pass@{k}" for k in ks)
