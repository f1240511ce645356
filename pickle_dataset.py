#!/usr/bin/env python3
"""Folders of fixed-length samples as one dataset: `from pickle_dataset import PickledTrainerDataset`.

Run as a program, it reads the folders that are named and says what is in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

if __name__ == "__main__":
    import deepy

    deepy.enter()

from megatron.neox.data.pickled import PickledTrainerDataset

__all__ = ["PickledTrainerDataset"]

_EXAMPLES = """examples:
  python pickle_dataset.py tokenized_data
  python -i -c 'from pickle_dataset import *; ptd = PickledTrainerDataset(["tokenized_data"])'
"""


def main(arguments: Sequence[str]) -> None:
    """Read the folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="made by tools/tokenize_data.py")
    dataset = PickledTrainerDataset(parser.parse_args(arguments).folders)
    if len(dataset):
        print(f"{len(dataset)} samples of {len(dataset[0]['input_ids'])} ids")  # noqa: T201


if __name__ == "__main__":
    from megatron.neox.errors import run_door

    sys.exit(run_door(main, sys.argv[1:]))
