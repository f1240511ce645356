"""The loss curves of one or several runs as one picture (PNG)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megatron.neox.reports.canvas import canvas, colour
from megatron.neox.reports.metrics import Metrics

_MARKS = ("^", "s", "v", "D", "P", "X", "<", ">", "*", "h", "p", "d")


def draw_loss_curves(runs: Mapping[str, Metrics], output: Path, *, log_axes: str = "") -> None:
    """Draw training loss (line) and validation loss (dots) of every run, nats per token over steps.

    Of several runs the training losses are faint, so that the validation losses can be told apart. Losses of single
    validation sets (`validation_loss/NAME`) are dotted.

    Args:
        log_axes: which axes are logarithmic: "", "x", "y" or "xy".
    """
    with canvas(output) as (axes,):
        for index, (name, metrics) in enumerate(runs.items()):
            train, validation = metrics.curve("loss"), metrics.curve("validation_loss")
            is_faint = len(runs) > 1 and bool(validation.values)
            style = {"linewidth": 0.8, "alpha": 0.35} if is_faint else {"linewidth": 1.2}
            own = colour(index, len(runs))
            label = None if is_faint else f"{name}: training"
            axes.plot(train.steps, train.values, color=own, label=label, **style)
            if validation.values:
                axes.plot(
                    validation.steps, validation.values, color=own, linestyle="--", marker="o", markersize=4,
                    label=f"{name}: validation",
                )  # fmt: skip
            for mark, key in zip(_MARKS * len(metrics.records), metrics.keys("validation_loss/")):
                one = metrics.curve(key)
                label = f"{name}: validation, {key.partition('/')[2]}"
                axes.plot(
                    one.steps, one.values, color=own, linestyle=":", marker=mark, markersize=4, label=label
                )
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per token)")
        axes.set_xscale("log" if "x" in log_axes else "linear")
        axes.set_yscale("log" if "y" in log_axes else "linear")
        axes.grid(alpha=0.3, which="both" if log_axes else "major")
        is_any_faint = len(runs) > 1 and any(one.curve("validation_loss").values for one in runs.values())
        axes.legend(title="faint: training" if is_any_faint else None)
