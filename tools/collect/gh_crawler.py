#!/usr/bin/env python3
"""List the repositories with most stars on GitHub, by language, with licence, dates and the head commit of each.

The token is read from GITHUB_TOKEN or GH_TOKEN; any without a scope will do. A crawl that was stopped goes on where
it was when the same command is given again."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
import deepy

deepy.enter()

import argparse
import os
from collections.abc import Sequence
from datetime import date, datetime

from megatron.neox.corpus.crawl.github import API_URL
from megatron.neox.corpus.crawl.toplists import CrawlSettings, crawl, replay
from megatron.neox.downloads.fetch import Patience
from megatron.neox.downloads.options import add_patience_options, told_patience
from megatron.neox.errors import InputError, run_long_door

EXAMPLES = """examples:
  tools/collect/gh_crawler.py
  tools/collect/gh_crawler.py --languages C,Rust --min-stars 500 --limit 1000 --output Small/TopLists
  tools/collect/gh_crawler.py --from-manifest TopLists/manifest.jsonl --output Again/TopLists
"""


def day(text: str) -> str:
    """A date as GitHub's search takes it."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no date such as 2020-01-31") from error


def utc_time(text: str) -> str:
    """A second in UTC; a date is its first one."""
    try:
        return datetime.fromisoformat(text.removesuffix("Z")).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text} is no time such as 2020-01-31 or 2020-01-31T12:00:00Z"
        ) from error


def _parser() -> argparse.ArgumentParser:
    defaults = CrawlSettings()
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--output", type=Path, default=Path("TopLists"), metavar="DIR",
        help="gets LANGUAGE-top-repos.txt, manifest.jsonl and crawl.json (default: %(default)s)",
    )  # fmt: skip
    add(
        "--languages", default=",".join(defaults.languages), metavar="A,B",
        help=f"as GitHub names them (default: {', '.join(defaults.languages)})",
    )  # fmt: skip
    add("--min-stars", type=int, default=defaults.min_stars, metavar="N", help="default: %(default)s")
    add(
        "--limit", type=int, default=defaults.limit, metavar="N",
        help="most repositories of a language, those with most stars (default: %(default)s)",
    )  # fmt: skip
    add(
        "--pushed-since", type=day, default=defaults.pushed_since, metavar="DATE",
        help="leave out what had no push since (default: %(default)s)",
    )  # fmt: skip
    add(
        "--created-until", type=utc_time, metavar="TIME",
        help="leave out what is newer; a date or time in UTC (default: when the crawl began)",
    )  # fmt: skip
    add("--api-url", default=API_URL, metavar="URL", help="of a GraphQL API (default: %(default)s)")
    add(
        "--from-manifest", type=Path, metavar="FILE",
        help="write the lists of this manifest.jsonl again, without a network and without a token",
    )  # fmt: skip
    add_patience_options(parser, Patience(num_retries=8))
    add(
        "--throttle-wait", type=float, default=60.0, metavar="SECONDS",
        help="the first wait at a limit that does not say how long (default: %(default)s, as GitHub asks for)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str]) -> None:
    """Crawl, or replay a crawl, and say what was found."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.from_manifest:
        chosen = ("languages", "min_stars", "limit", "pushed_since", "created_until")
        if given := [name for name in chosen if getattr(options, name) != parser.get_default(name)]:
            told = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            parser.error(f"--from-manifest writes the lists as they were; leave out {told}")
        counts = replay(options.from_manifest, options.output)
        print(f"{options.output}: {', '.join(f'{name} {count:,}' for name, count in counts.items())}")
        return
    patience = told_patience(parser, options)
    if options.throttle_wait < 0:
        parser.error("--throttle-wait cannot be negative")
    if options.min_stars < 0 or options.limit < 1:
        parser.error("--min-stars cannot be negative, --limit must be at least 1")
    settings = CrawlSettings(
        languages=list(dict.fromkeys(name for name in options.languages.split(",") if name)),
        min_stars=options.min_stars,
        limit=options.limit,
        pushed_since=options.pushed_since,
        created_until=options.created_until,
        api_url=options.api_url,
    )
    record = crawl(
        settings, options.output, _token(), patience=patience, throttled_seconds=options.throttle_wait
    )
    for language, counts in record["languages"].items():
        lost = "".join(f", {counts[word]:,} {word}" for word in ("missing", "hidden") if counts[word])
        print(f"{language}: {counts['repositories']:,} repositories{lost}")
    print(f"next: tools/collect/clone_repo.py --input {options.output}")


def _token() -> str:
    token = os.environ.get("GITHUB_TOKEN") or os.environ.get("GH_TOKEN") or ""
    if not token.strip():
        raise InputError(
            "GitHub's search needs a token, and neither GITHUB_TOKEN nor GH_TOKEN holds one\n"
            "  make one without any scope at https://github.com/settings/tokens, and: export GITHUB_TOKEN=..."
        )
    return token.strip()


if __name__ == "__main__":
    sys.exit(run_long_door(main, sys.argv[1:]))
