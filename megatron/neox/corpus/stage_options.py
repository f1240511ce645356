"""What every tool that runs a stage can be told."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from megatron.neox.corpus.counts import Counts
from megatron.neox.corpus.stage import Stage, run_stage


def add_stage_options(parser: argparse.ArgumentParser, *, output: str | None = None) -> None:
    """Add --output, --workers, --resume and --overwrite.

    Args:
        output: what --output gets, of a tool that also does things without one.
    """
    add = parser.add_argument
    add("--output", type=Path, required=output is None, metavar="FOLDER",
        help=output or "gets the shards and summary.json")  # fmt: skip
    add("--workers", type=_positive, default=len(os.sched_getaffinity(0)), metavar="N",
        help="processes (default: the processor cores, %(default)s)")  # fmt: skip
    add("--resume", action="store_true", help="go on with a run that was stopped")
    add("--overwrite", action="store_true", help="begin anew where another run's output stands")


def run_as_told(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Run the stage, print its counts, and return its summary.

    Raises:
        OutputError, ResourceError: as `run_stage`.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    summary = run_stage(stage, workers=options.workers, resume=options.resume, overwrite=options.overwrite)
    sys.stdout.write(f"{stage.output}:\n{Counts.from_json(summary).lines()}")
    return summary


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
