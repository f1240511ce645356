"""Pictures and one page of runs, of verdicts and of results by language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megatron.neox.errors import InputError
from megatron.neox.evaluation.intervals import resampled_sums
from megatron.neox.evaluation.pass_at_k import DEFAULT_KS, pass_at_k_by_task
from megatron.neox.evaluation.published.tables import NUM_TASKS, code_perplexity, human_eval
from megatron.neox.evaluation.report_inputs import MEASURES, Inputs, Verdicts
from megatron.neox.generation.output import refuse_unwritable
from megatron.neox.reports.evaluation_curves import draw_evaluation_curves, evaluation_keys
from megatron.neox.reports.language_bars import Bar, draw_language_bars
from megatron.neox.reports.loss_curve import draw_loss_curves
from megatron.neox.reports.page import Page, Picture, Table
from megatron.neox.reports.pass_curves import Band, draw_pass_at_k, draw_pass_by_temperature

_LABELS = dict(zip(("bits per byte", "perplexity by Pygments tokens"), MEASURES))


class Report:
    """What is drawn of the inputs, in files OUTPUT_KIND.png and OUTPUT.html.

    Args:
        output: the path without its ending.
        log_axes: logarithmic axes of curves over steps: "", "x", "y" or "xy".
    """

    def __init__(self, inputs: Inputs, output: Path, *, log_axes: str = "") -> None:
        self.inputs = inputs
        self.output = output
        self.log_axes = log_axes
        self.notes: list[str] = []
        """What was left out, and why."""
        self._pictures: list[Picture] = []
        self._tables: list[Table] = []

    def write(self) -> list[Path]:
        """Draw everything; the files, the page last.

        Raises:
            InputError: two files of verdicts have one label, or there is nothing to draw.
            OutputError: the folder cannot be written.
        """
        page = self.output.with_name(self.output.name + ".html")
        refuse_unwritable(page)
        if self.inputs.runs:
            self._losses()
            self._evaluations()
        if self.inputs.verdicts:
            self._pass_at_k()
            self._temperatures()
        if self.inputs.languages:
            self._languages()
        if not self._pictures:
            raise InputError(
                f"{', '.join(self.inputs.runs)}: no loss and no evaluation was logged, so nothing is drawn"
            )
        Page("Report", pictures=self._pictures, tables=self._tables).write(page)
        return [*(picture.path for picture in self._pictures), page]

    def _picture(self, kind: str, title: str, says: str) -> Path:
        path = self.output.with_name(f"{self.output.name}_{kind}.png")
        self._pictures.append(Picture(title, path, says))
        return path

    def _losses(self) -> None:
        runs = self.inputs.runs
        if not any(
            metrics.curve(key).values for metrics in runs.values() for key in ("loss", "validation_loss")
        ):
            return
        path = self._picture("loss", "Loss", "Training and validation loss over steps")
        draw_loss_curves(runs, path, log_axes=self.log_axes)
        rows = [
            (name, curve.steps[-1], curve.last, metrics.curve("validation_loss").last or "-")
            for name, metrics in runs.items()
            if (curve := metrics.curve("loss")).values
        ]
        self._tables.append(Table("Last logged values", ("run", "step", "loss", "validation loss"), rows))

    def _evaluations(self) -> None:
        rows = [
            (name, task, metric, curve.steps[-1], curve.last)
            for name, metrics in self.inputs.runs.items()
            for metric, tasks in evaluation_keys(metrics).items()
            for task in tasks
            for curve in [metrics.curve(f"eval/{task}/{metric}")]
        ]
        if rows:
            path = self._picture("evaluation", "Evaluation in training", "Metrics of tasks over steps")
            draw_evaluation_curves(self.inputs.runs, path, log_axes=self.log_axes)
            header = ("run", "task", "metric", "step", "value")
            self._tables.append(Table("Last evaluation in training", header, rows))

    def _pass_at_k(self) -> None:
        bands: dict[str, Band] = {}
        for verdicts in self.inputs.verdicts:
            if verdicts.label in bands:
                raise InputError(f"two files of verdicts are {verdicts.label}; give each a name: NAME=PATH")
            fewest = min(number for number, _ in verdicts.counts.values())
            bands[verdicts.label] = band(verdicts, range(1, fewest + 1))
        says = "pass@k over k, with bands of 95% intervals (bootstrap over tasks)"
        draw_pass_at_k(bands, self._picture("pass_at_k", "pass@k", says))
        rows: list[tuple[object, ...]] = [
            (verdicts.label, len(verdicts.counts), *_cells(bands[verdicts.label]))
            for verdicts in self.inputs.verdicts
        ]
        if any(len(verdicts.counts) == NUM_TASKS for verdicts in self.inputs.verdicts):
            rows += [
                (f"published: {row.model}", NUM_TASKS, *(f"{value:.2f}%" for value in row.pass_at.values()))
                for row in human_eval().rows
            ]
        header = ("samples", "tasks", *(f"pass@{k}" for k in DEFAULT_KS))
        self._tables.append(Table("pass@k with 95% intervals; the published have none", header, rows))

    def _temperatures(self) -> None:
        bands: dict[str, Band] = {}
        for model in dict.fromkeys(verdicts.model for verdicts in self.inputs.verdicts):
            own = [verdicts for verdicts in self.inputs.verdicts if verdicts.model == model]
            bands |= self._by_temperature(model, own)
        if bands:
            says = "pass@k over the sampling temperature, with 95% intervals"
            path = self._picture("temperature", "pass@k by temperature", says)
            draw_pass_by_temperature(bands, path)

    def _by_temperature(self, model: str, files: Sequence[Verdicts]) -> dict[str, Band]:
        """A band for each k that all files of a model can tell; none where they do not make a line."""
        told = [verdicts for verdicts in files if verdicts.temperature is not None]
        temperatures = [verdicts.temperature for verdicts in told]
        if len(set(temperatures)) < 2:
            return {}
        if len(set(temperatures)) < len(told):
            self.notes.append(
                f"not drawn over temperature: {model or 'files without a name'}, two of whose files are of one "
                "temperature; name the files of each model: NAME=PATH"
            )
            return {}
        if len(told) < len(files):
            untold = ", ".join(verdicts.label for verdicts in files if verdicts.temperature is None)
            self.notes.append(f"not drawn over temperature, which the file does not tell: {untold}")
        told.sort(key=lambda verdicts: verdicts.temperature or 0.0)
        fewest = min(number for verdicts in told for number, _ in verdicts.counts.values())
        bands: dict[str, Band] = {}
        for k in [k for k in DEFAULT_KS if k <= fewest]:
            each = [band(verdicts, [k]) for verdicts in told]
            label = f"{model}: pass@{k}" if model else f"pass@{k}"
            bands[label] = Band(
                sorted(temperature for temperature in temperatures if temperature is not None),
                [one.means[0] for one in each],
                [one.lows[0] for one in each],
                [one.highs[0] for one in each],
            )
        return bands

    def _languages(self) -> None:
        panels = {
            label: {name: _bars(metrics, key) for name, metrics in self.inputs.languages.items()}
            for label, key in _LABELS.items()
        }
        measured = {language for metrics in self.inputs.languages.values() for language in metrics}
        published = code_perplexity()
        panels["perplexity by Pygments tokens"][f"published: {published.model}"] = {
            language: Bar(value) for language, value in published.rows.items() if language in measured
        }
        path = self._picture("languages", "Languages", "Bars by language, with 95% intervals")
        drawn = {label: {n: b for n, b in s.items() if b} for label, s in panels.items()}
        draw_language_bars({label: series for label, series in drawn.items() if series}, path)
        rows = [
            (language, name, label, bar.value, *((bar.low, bar.high) if bar.low is not None else ("-", "-")))
            for label, series in panels.items()
            for name, bars in series.items()
            for language, bar in bars.items()
        ]
        header = ("language", "model", "measure", "value", "95% from", "to")
        self._tables.append(Table("Languages", header, rows))


def band(verdicts: Verdicts, ks: Sequence[int]) -> Band:
    """pass@k for each k, mean over tasks, with the 95% interval of the bootstrap over tasks: one draw for all k."""
    counts = [*verdicts.counts.values()]
    columns = {str(k): pass_at_k_by_task(counts, k).tolist() for k in ks}
    ends = [np.quantile(sums / len(counts), [0.025, 0.975]) for sums in resampled_sums(columns).values()]
    means = [sum(column) / len(counts) for column in columns.values()]
    return Band([*ks], means, [float(low) for low, _ in ends], [float(high) for _, high in ends])


def _cells(band: Band) -> list[str]:
    """pass@1, pass@10 and pass@100 as text; a dash for those that the samples cannot tell."""
    cells = []
    for k in DEFAULT_KS:
        if k > len(band.places):
            cells.append("-")
            continue
        mean, low, high = (100 * values[k - 1] for values in (band.means, band.lows, band.highs))
        cells.append(f"{mean:.2f}% ({low:.2f} to {high:.2f})")
    return cells


def _bars(metrics: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, Bar]:
    return {
        language: Bar(values[key], values.get(f"{key}_ci95_low"), values.get(f"{key}_ci95_high"))
        for language, values in metrics.items()
        if values.get(key) is not None
    }
