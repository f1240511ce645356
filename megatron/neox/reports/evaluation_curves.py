"""Evaluation in training: a task's metrics over steps, a panel for each metric (PNG)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megatron.neox.reports.canvas import canvas, colour
from megatron.neox.reports.metrics import Metrics

_PREFIX = "eval/"
_STYLES = ("-", "--", ":", "-.")
# Counts and sums say how much was measured, not how well; ends of intervals are drawn as a band. byte_perplexity is
# bits_per_byte on another scale.
_NOT_DRAWN = ("num_", "log_likelihood", "byte_perplexity")
_ENDS = (("_ci95_low", "_ci95_high"), ("_low", "_high"))


def evaluation_keys(metrics: Metrics) -> dict[str, list[str]]:
    """Tasks by metric, of the keys `eval/TASK/METRIC` that a run logged."""
    found: dict[str, list[str]] = {}
    for key in metrics.keys(_PREFIX):
        task, _, metric = key.removeprefix(_PREFIX).rpartition("/")
        is_end = metric.endswith(("_stderr", *(end for ends in _ENDS for end in ends)))
        if task and not is_end and not metric.startswith(_NOT_DRAWN) and metrics.curve(key).values:
            found.setdefault(metric, []).append(task)
    return found


def draw_evaluation_curves(runs: Mapping[str, Metrics], output: Path, *, log_axes: str = "") -> None:
    """Draw what the runs logged as `eval/TASK/METRIC`: a colour for each task, a line style for each run.

    Args:
        log_axes: which axes are logarithmic: "", "x", "y" or "xy".
    """
    keys = {name: evaluation_keys(metrics) for name, metrics in runs.items()}
    found = list(dict.fromkeys(metric for by_metric in keys.values() for metric in by_metric))
    with canvas(output, panels=len(found)) as panels:
        for axes, metric in zip(panels, found):
            tasks = list(dict.fromkeys(task for name in runs for task in keys[name].get(metric, ())))
            for style, (name, metrics) in zip(_STYLES * len(runs), runs.items()):
                for task in keys[name].get(metric, ()):
                    own = colour(tasks.index(task), len(tasks))
                    curve = metrics.curve(f"{_PREFIX}{task}/{metric}")
                    label = task if len(runs) == 1 else f"{name}: {task}"
                    axes.plot(
                        curve.steps, curve.values, color=own, linestyle=style, marker="o", markersize=3,
                        label=label,
                    )  # fmt: skip
                    for low, high in _ENDS:
                        ends = [metrics.curve(f"{_PREFIX}{task}/{metric}{end}") for end in (low, high)]
                        if ends[0].values and ends[0].steps == ends[1].steps:
                            axes.fill_between(
                                ends[0].steps, ends[0].values, ends[1].values, color=own, alpha=0.15
                            )
            axes.set_xlabel("step")
            axes.set_ylabel(metric.replace("_", " "))
            axes.set_xscale("log" if "x" in log_axes else "linear")
            axes.set_yscale("log" if "y" in log_axes else "linear")
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small", ncols=2 if len(tasks) * len(runs) > 8 else 1)
