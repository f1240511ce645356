"""What every tool that fetches can be told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from megatron.neox.downloads.fetch import Fetcher, Patience
from megatron.neox.downloads.progress import ProgressLines


def add_fetch_options(parser: argparse.ArgumentParser, *, origins: str, archive: str) -> None:
    """Add the options that are the same for all: `mirror`, `checksum`, `keep_archive`, patience.

    Args:
        origins: the servers that a mirror stands in for.
        archive: what kind of file is unpacked.
    """
    patience = Patience()
    add = parser.add_argument
    add("--mirror", metavar="URL", help=f"a server with the same paths, in place of {origins}")
    add(
        "--checksum", action=argparse.BooleanOptionalAction, default=True,
        help=f"ask the record for size and checksum of the {archive}, and compare",
    )  # fmt: skip
    add("--keep-archive", action="store_true", help=f"leave the {archive} beside what was in it")
    add_patience_options(parser, patience)


def add_patience_options(parser: argparse.ArgumentParser, patience: Patience) -> None:
    """Add --retries, --retry-wait and --timeout."""
    add_retry_options(
        parser, patience.num_retries, patience.wait_seconds,
        "failures in a row, without a byte between them, after which to give up",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=patience.timeout_seconds, metavar="SECONDS",
        help="longest silence of the server (default: %(default)s)",
    )  # fmt: skip


def add_retry_options(
    parser: argparse.ArgumentParser, num_retries: int, wait_seconds: float, meaning: str
) -> None:
    """Add --retries, whose meaning is told, and --retry-wait."""
    add = parser.add_argument
    add("--retries", type=int, default=num_retries, metavar="N", help=f"{meaning} (default: %(default)s)")
    add(
        "--retry-wait", type=float, default=wait_seconds, metavar="SECONDS",
        help="before the first retry; twice as long before each further one (default: %(default)s)",
    )  # fmt: skip


@contextmanager
def fetcher_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[Fetcher]:
    """A fetcher with the patience that was asked for, telling its progress on stderr."""
    patience = told_patience(parser, options)
    with closing(ProgressLines(sys.stderr)) as progress:
        yield Fetcher(progress, patience)


def told_patience(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Patience:
    """What `add_patience_options` was given."""
    if options.retries < 0 or options.retry_wait < 0 or options.timeout <= 0:
        parser.error("--retries and --retry-wait cannot be negative, --timeout must be above 0")
    return Patience(options.retries, options.retry_wait, options.timeout)
