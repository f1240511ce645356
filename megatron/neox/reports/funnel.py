"""What is left of a corpus after each step of its stages, as one picture (PNG)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.files import appearing


@dataclass(frozen=True)
class FunnelStep:
    """What is left after a step."""

    name: str
    num_files: int
    num_bytes: int


def steps_of(summaries: Sequence[Mapping[str, Any]]) -> list[FunnelStep]:
    """The steps of stages in their order, from their summary.json: what came in, then each reason, then the next."""
    steps: list[FunnelStep] = []
    for summary in summaries:
        reasons = {reason: _total(languages) for reason, languages in summary["left_out"].items()}
        kept = _total(summary["kept"])
        files = kept[0] + sum(amount[0] for amount in reasons.values())
        size = kept[1] + sum(amount[1] for amount in reasons.values())
        if not steps:
            steps.append(FunnelStep("found", files, size))
        for reason, amount in sorted(reasons.items(), key=lambda item: (-item[1][1], item[0])):
            files, size = files - amount[0], size - amount[1]
            steps.append(FunnelStep(f"{summary['stage']}: {reason}", files, size))
    return steps


def draw_funnel(steps: Sequence[FunnelStep], output: Path) -> None:
    """Draw a bar a step: bytes that are left, and beside it the files and what the step took."""
    import matplotlib

    matplotlib.use("Agg")  # no display is needed
    from matplotlib import pyplot

    places = range(len(steps))  # two stages of a kind have steps of one name
    sizes = [step.num_bytes / 1e6 for step in steps]
    before = [sizes[0], *sizes[:-1]] if sizes else []
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.32 * len(steps)), layout="constrained")
    axes.barh(places, before, color="#d9d9d9")
    axes.set_yticks(places, [step.name for step in steps])
    bars = axes.barh(places, sizes, color=matplotlib.colormaps["viridis"](0.35))
    axes.bar_label(
        bars, [f"  {size:,.1f} MB, {step.num_files:,} files" for size, step in zip(sizes, steps)], fontsize=8
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * max(sizes, default=1.0) or 1.0)
    axes.set_xlabel("MB left after each step (grey: what the step took)")
    with appearing(output) as partial:
        figure.savefig(partial, dpi=120, format="png")
    pyplot.close(figure)


def _total(languages: Mapping[str, Mapping[str, int]]) -> tuple[int, int]:
    amounts = languages.values()
    return sum(amount["num_files"] for amount in amounts), sum(amount["num_bytes"] for amount in amounts)
