#!/usr/bin/env python3
"""Fetch the files that PolyCoder's perplexities were measured with, unseen_test_sets.tar.gz, and unpack them.

A download that broke off goes on where it stopped, and is compared with the checksum that its archive records."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
from collections.abc import Sequence

from megatron.neox.downloads.evaluation_sets import download_test_sets, num_files
from megatron.neox.downloads.options import add_fetch_options, fetcher_of, run_fetching

EXAMPLES = """examples:
  tools/download_eval_data.py
  tools/download_eval_data.py --output evaldata/Code-sampled100 --keep-archive
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("evaldata/Code-sampled100"), metavar="DIR",
        help="folder LANGUAGE/USER/REPOSITORY/FILE to make (default: %(default)s)",
    )  # fmt: skip
    add_fetch_options(parser, origins="zenodo.org", archive="tar.gz")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Fetch the test sets, and say what there is."""
    parser = _parser()
    options = parser.parse_args(arguments)
    with fetcher_of(parser, options) as fetcher:
        is_new = download_test_sets(
            options.output, fetcher, mirror=options.mirror, is_checked=options.checksum,
            keep_archive=options.keep_archive,
        )  # fmt: skip
    counts = ", ".join(f"{name} {count}" for name, count in num_files(options.output).items())
    print(f"{options.output} {'holds' if is_new else 'was there already; it holds'}: {counts}")
    print("next: ./deepy.py evaluate.py -d checkpoints-2-7B/configs 2-7B.yml code_ppl.yml")


if __name__ == "__main__":
    sys.exit(run_fetching(main, sys.argv[1:]))
