#!/usr/bin/env python3
"""Draw runs, verdicts of HumanEval and perplexities by language, several of each on one picture, and one HTML page.

Runs: loss curves, and metrics of tasks evaluated in training. Verdicts (..._results.jsonl): pass@k over k, and over
temperature where several files of one NAME were sampled at several. Results of evaluate.py (.json): bars by language
beside PolyCoder's published figures."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
from collections.abc import Sequence

from megatron.neox.errors import run_door
from megatron.neox.evaluation.report import Report
from megatron.neox.evaluation.report_inputs import read_inputs

EXAMPLES = """examples:
  tools/report.py small=runs/160M medium=runs/0-4B --output comparison
  tools/report.py small=t0.2.jsonl_results.jsonl small=t0.8.jsonl_results.jsonl small=eval_results.json
"""


def main(arguments: Sequence[str]) -> None:
    """Write OUTPUT_KIND.png for each kind that there is, and OUTPUT.html."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="[NAME=]PATH", help="folder of a run, metrics.jsonl, verdicts or results"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report"),
        help="path of all files, without an ending (default: %(default)s)",
    )
    parser.add_argument(
        "--log-axes", choices=("", "x", "y", "xy"), default="", help="of curves over steps (default: none)"
    )
    options = parser.parse_args(arguments)
    report = Report(read_inputs(options.inputs), options.output, log_axes=options.log_axes)
    print(f"wrote {', '.join(map(str, report.write()))}")
    for note in report.notes:
        print(f"  {note}")


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
