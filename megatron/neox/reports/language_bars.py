"""Bars by language with 95% intervals, several models side by side (PNG)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.neox.reports.canvas import canvas, colour

_WIDE = 20  # times the smallest value: from there on, a logarithmic axis


@dataclass(frozen=True)
class Bar:
    """A value and the ends of its interval; none where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None


Series = Mapping[str, Mapping[str, Bar]]
"""Bars by model, then by language."""


def draw_language_bars(panels: Mapping[str, Series], output: Path) -> None:
    """Draw a panel for each quantity, by its label: languages side by side, in each of them the models.

    An axis is logarithmic where the values span more than a factor of 20.
    """
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    with canvas(output, panels=len(panels)) as drawn:
        for axes, (label, series) in zip(drawn, panels.items()):
            languages = list(dict.fromkeys(name for bars in series.values() for name in bars))
            width = 0.8 / len(series)
            for place, (name, bars) in enumerate(series.items()):
                held = [number for number, language in enumerate(languages) if language in bars]
                chosen = [bars[languages[number]] for number in held]
                axes.bar(
                    [number - 0.4 + width * (place + 0.5) for number in held], [bar.value for bar in chosen],
                    width, yerr=_errors(chosen), label=name, color=colour(names.index(name), len(names)),
                    error_kw={"elinewidth": 0.8, "capsize": 2},
                )  # fmt: skip
            values = [bar.value for bars in series.values() for bar in bars.values()]
            if max(values) > _WIDE * min(values):
                axes.set_yscale("log")
            axes.set_xticks(range(len(languages)), languages, rotation=30, ha="right")
            axes.set_ylabel(label)
            axes.grid(alpha=0.3, axis="y")
            axes.legend(fontsize="small")


def _errors(bars: Sequence[Bar]) -> list[list[float]]:
    """Lengths [2, bars] of the intervals below and above the values; what is no number is not drawn.

    An interval may end a rounding before its value, or leave it out.
    """
    return [
        [max(0.0, bar.value - bar.low) if bar.low is not None else math.nan for bar in bars],
        [max(0.0, bar.high - bar.value) if bar.high is not None else math.nan for bar in bars],
    ]
