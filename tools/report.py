#!/usr/bin/env python3
"""Draw the loss curves of one or several runs as a picture, and put them on one HTML page."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
from collections.abc import Sequence

from megatron.neox.errors import InputError, run_door
from megatron.neox.reports.loss_curve import draw_loss_curves
from megatron.neox.reports.metrics import Metrics
from megatron.neox.reports.page import Page, Table

EXAMPLES = """examples:
  tools/report.py runs/quickstart/checkpoints --output runs/quickstart/curves
  tools/report.py small=runs/160M medium=runs/0-4B --output comparison
"""


def main(arguments: Sequence[str]) -> None:
    """Write OUTPUT.png and OUTPUT.html."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="folders with metrics.jsonl, or NAME=FOLDER")
    parser.add_argument(
        "--output", type=Path, default=Path("report"), help="path of both files, without an ending"
    )
    options = parser.parse_args(arguments)

    runs: dict[str, Metrics] = {}
    for run in options.runs:
        name, separator, folder = run.partition("=")
        if name in runs:
            raise InputError(f"two runs are named {name}; give each a name of its own: NAME=FOLDER")
        runs[name] = Metrics(Path(folder if separator else run))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    picture, page = (options.output.with_name(options.output.name + ending) for ending in (".png", ".html"))
    draw_loss_curves(runs, picture)
    rows = [
        (name, curve.steps[-1], curve.last, metrics.curve("validation_loss").last or "-")
        for name, metrics in runs.items()
        if (curve := metrics.curve("loss")).values
    ]
    table = Table("Last logged values", ("run", "step", "loss", "validation loss"), rows)
    Page(title="Loss curves", picture=picture, tables=[table]).write(page)
    print(f"wrote {picture} and {page}")


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
