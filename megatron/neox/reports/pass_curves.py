"""pass@k against k, and against the sampling temperature, with 95% intervals (PNG)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.reports.canvas import canvas, colour


@dataclass(frozen=True)
class Band:
    """Means and the ends of their intervals, shares of 1, over k or over temperature."""

    places: Sequence[float]
    means: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def draw_pass_at_k(bands: Mapping[str, Band], output: Path) -> None:
    """Draw pass@k in percent over k from 1 to the number of samples, an interval as a band around each line."""
    with canvas(output) as (axes,):
        for index, (name, band) in enumerate(bands.items()):
            own = colour(index, len(bands))
            marker = "o" if len(band.places) == 1 else None
            axes.plot(band.places, _percent(band.means), color=own, marker=marker, label=name)
            axes.fill_between(
                band.places, _percent(band.lows), _percent(band.highs), color=own, alpha=0.15, linewidth=0
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("k (samples drawn)")
        _finish(axes, "pass@k (%)")


def draw_pass_by_temperature(bands: Mapping[str, Band], output: Path) -> None:
    """Draw pass@k in percent over temperature, a line for each model and k, with intervals as bars."""
    with canvas(output) as (axes,):
        for index, (name, band) in enumerate(bands.items()):
            means = _percent(band.means)
            errors = [
                # An interval may end a rounding before its mean.
                [max(0.0, mean - low) for mean, low in zip(means, _percent(band.lows))],
                [max(0.0, high - mean) for mean, high in zip(means, _percent(band.highs))],
            ]
            axes.errorbar(
                band.places, means, yerr=errors, color=colour(index, len(bands)), marker="o", capsize=3,
                label=name,
            )  # fmt: skip
        axes.set_xlabel("temperature")
        _finish(axes, "pass@k (%)")


def _finish(axes: Any, label: str) -> None:
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]
