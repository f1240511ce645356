#!/usr/bin/env python3
"""Fetch one of PolyCoder's released models, or its vocabulary, and put the files where the configs look for them.

A download that broke off goes on where it stopped, and is compared with the checksum that its archive records."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import logging
import signal
from collections.abc import Sequence
from contextlib import closing

from megatron.neox.downloads.fetch import Fetcher, Patience
from megatron.neox.downloads.polycoder import (
    NAMES,
    VOCABULARY,
    download_model,
    download_vocabulary,
    next_command,
    release_named,
)
from megatron.neox.downloads.progress import ProgressLines
from megatron.neox.errors import run_door

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
    parser.add_argument(
        "--mirror", metavar="URL", help="a server with the same paths, in place of zenodo.org and GitHub"
    )
    parser.add_argument(
        "--checksum",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask the record for a model's size and checksum, and compare; the vocabulary is always compared",
    )
    parser.add_argument("--keep-archive", action="store_true", help="leave the tar beside what was in it")
    patience = Patience()
    parser.add_argument(
        "--retries", type=int, default=patience.num_retries, metavar="N",
        help="failures in a row, without a byte between them, after which to give up (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--retry-wait", type=float, default=patience.wait_seconds, metavar="SECONDS",
        help="before the first retry; twice as long before each further one (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=patience.timeout_seconds, metavar="SECONDS",
        help="longest silence of the server (default: %(default)s)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str]) -> None:
    """Fetch what NAME stands for."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.retries < 0 or options.retry_wait < 0 or options.timeout <= 0:
        parser.error("--retries and --retry-wait cannot be negative, --timeout must be above 0")
    with closing(ProgressLines(sys.stderr)) as progress:
        fetcher = Fetcher(progress, Patience(options.retries, options.retry_wait, options.timeout))
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


def _stop(number: int, _frame: object) -> None:
    """End as an error does; what has arrived stays for the next run."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(run_door(main, sys.argv[1:]))
