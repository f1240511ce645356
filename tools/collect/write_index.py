#!/usr/bin/env python3
"""Write the index of a corpus: a line {language}__{organization}__{project}__{path}<TAB>SHA-256 for each file.

The hash is of the file's own bytes. The lines are sorted; an output that ends in .zip is compressed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

from megatron.neox.corpus.index.writer import write_index
from megatron.neox.errors import run_door

_EXAMPLES = """examples:
  tools/collect/write_index.py --input unique --output index.zip
  tools/collect/write_index.py --input unique --output index.txt --overwrite
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="FOLDER", help="shards")
    add(
        "--output", type=Path, required=True, metavar="FILE", help="the index, such as index.txt or index.zip"
    )
    add("--overwrite", action="store_true", help="replace the output")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Write the index, and say how long it is."""
    options = _parser().parse_args(arguments)
    num_lines = write_index(options.input, options.output, overwrite=options.overwrite)
    print(f"{options.output}: {num_lines:,} files")


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
