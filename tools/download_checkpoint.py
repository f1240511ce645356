#!/usr/bin/env python3
"""Fetch one of PolyCoder's released models, or its vocabulary, and put the files where the configs look for them.

A download that broke off goes on where it stopped, and is compared with the checksum that its archive records."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
from collections.abc import Sequence

from megatron.neox.downloads.options import add_fetch_options, fetcher_of
from megatron.neox.downloads.polycoder import (
    NAMES,
    VOCABULARY,
    download_model,
    download_vocabulary,
    next_command,
    release_named,
)
from megatron.neox.errors import run_long_door

EXAMPLES = """examples:
  tools/download_checkpoint.py vocab
  tools/download_checkpoint.py 2-7B-150K --output checkpoints
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(NAMES)}")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder (default: checkpoints, and data for the vocabulary)",
    )
    add_fetch_options(parser, origins="zenodo.org and GitHub", archive="tar")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Fetch what NAME stands for."""
    parser = _parser()
    options = parser.parse_args(arguments)
    with fetcher_of(parser, options) as fetcher:
        if options.name == VOCABULARY:
            paths = download_vocabulary(options.output or Path("data"), fetcher, mirror=options.mirror)
            print("\n".join(map(str, paths)))
            return
        release, output = release_named(options.name), options.output or Path("checkpoints")
        is_new = download_model(
            release,
            output,
            fetcher,
            mirror=options.mirror,
            is_checked=options.checksum,
            keep_archive=options.keep_archive,
        )
    weights, difference = output / release.step_folder, release.difference(output)
    if difference:
        print(f"{weights} is what the archive had, and not what was expected: {difference}")
    else:
        print(f"{weights} is complete" if is_new else f"{weights} was complete already; nothing was fetched")
    print(next_command(output))


if __name__ == "__main__":
    sys.exit(run_long_door(main, sys.argv[1:]))
