#!/usr/bin/env python3
"""Fetch the files that PolyCoder's perplexities were measured with, unseen_test_sets.tar.gz, and unpack them.

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
from megatron.neox.downloads.progress import ProgressLines
from megatron.neox.downloads.test_sets import download_test_sets, num_files
from megatron.neox.errors import run_door

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
    parser.add_argument(
        "--mirror", metavar="URL", help="a server with the same paths, in place of zenodo.org"
    )
    parser.add_argument(
        "--checksum", action=argparse.BooleanOptionalAction, default=True,
        help="ask the record for size and checksum, and compare",
    )  # fmt: skip
    parser.add_argument("--keep-archive", action="store_true", help="leave the tar.gz beside what was in it")
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
    """Fetch the test sets, and say what there is."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.retries < 0 or options.retry_wait < 0 or options.timeout <= 0:
        parser.error("--retries and --retry-wait cannot be negative, --timeout must be above 0")
    with closing(ProgressLines(sys.stderr)) as progress:
        fetcher = Fetcher(progress, Patience(options.retries, options.retry_wait, options.timeout))
        is_new = download_test_sets(
            options.output, fetcher, mirror=options.mirror, is_checked=options.checksum,
            keep_archive=options.keep_archive,
        )  # fmt: skip
    counts = ", ".join(f"{name} {count}" for name, count in num_files(options.output).items())
    print(f"{options.output} {'holds' if is_new else 'was there already; it holds'}: {counts}")
    print("next: ./deepy.py evaluate.py -d checkpoints-2-7B/configs 2-7B.yml code_ppl.yml")


def _stop(number: int, _frame: object) -> None:
    """End as an error does; what has arrived stays for the next run."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(run_door(main, sys.argv[1:]))
