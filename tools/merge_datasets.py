#!/usr/bin/env python3
"""Merge token datasets into one: the parts of a corpus that several machines tokenized."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
from collections.abc import Sequence

from megatron.neox.data.merge import find_prefixes, merge_datasets
from megatron.neox.errors import run_long_door

EXAMPLES = """examples:
  tools/merge_datasets.py --input data/part0_text_document data/part1_text_document --output-prefix data/code
  tools/merge_datasets.py --input data/parts --output-prefix data/code_text_document
"""


def main(arguments: Sequence[str]) -> None:
    """Write OUTPUT_PREFIX.bin, .idx and .json."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="PREFIX",
        help="datasets in this order, or a folder of them",
    )
    parser.add_argument(
        "--output-prefix", required=True, metavar="PREFIX", help="writes PREFIX.bin, .idx and .json"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset of that prefix")
    options = parser.parse_args(arguments)
    merge_datasets(find_prefixes(options.input), options.output_prefix, overwrite=options.overwrite)


if __name__ == "__main__":
    sys.exit(run_long_door(main, sys.argv[1:]))
