#!/usr/bin/env python3
"""Run the whole chain on one folder of source code: collect, tokenize, train, complete, measure, report."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
from collections.abc import Sequence

from megatron.neox.errors import run_door
from megatron.neox.quickstart.chain import Quickstart

EXAMPLES = """examples:
  tools/quickstart.py
  tools/quickstart.py --input ~/src/my-project --extensions .py,.c,.h --output runs/my-project
"""


def main(arguments: Sequence[str]) -> None:
    """Run what is missing of the chain."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FOLDER",
        help="folder of source code (default: the Python standard library)",
    )
    parser.add_argument(
        "--extensions", metavar=".A,.B", help="endings of the files' names to collect (default: .py)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=deepy.ROOT / "runs" / "quickstart",
        metavar="FOLDER",
        help="gets all results; the same command goes on with what is there (default: runs/quickstart)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of configs/quickstart.yml; repeatable",
    )
    options = parser.parse_args(arguments)
    Quickstart(
        root=deepy.ROOT,
        output=options.output.resolve(),
        source=options.input.resolve() if options.input else None,
        extensions=options.extensions,
        settings=options.set,
    ).run()


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
