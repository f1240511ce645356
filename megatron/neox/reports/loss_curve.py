"""The loss curves of one or several runs as one picture (PNG)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megatron.neox.files import appearing
from megatron.neox.reports.metrics import Metrics


def draw_loss_curves(runs: Mapping[str, Metrics], output: Path) -> None:
    """Draw training loss (line) and validation loss (dots) of every run, nats per token over steps."""
    import matplotlib

    matplotlib.use("Agg")  # no display is needed
    from matplotlib import pyplot

    colours = matplotlib.colormaps["viridis"]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for index, (name, metrics) in enumerate(runs.items()):
        colour = colours(0.15 + 0.7 * index / max(1, len(runs) - 1))
        train, validation = metrics.curve("loss"), metrics.curve("validation_loss")
        axes.plot(train.steps, train.values, color=colour, linewidth=1.2, label=f"{name}: training")
        if validation.values:
            axes.plot(
                validation.steps, validation.values, color=colour, linestyle="--", marker="o", markersize=4,
                label=f"{name}: validation",
            )  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    with appearing(output) as partial:
        figure.savefig(partial, dpi=120, format="png")
    pyplot.close(figure)
