#!/usr/bin/env python3
"""Clone the repositories of a crawl, one commit deep, into LANGUAGE/ORGANIZATION/PROJECT, and record each commit.

Nothing of a repository is run, and nothing of your git configuration is used. When the same command is given again it
goes on where it was stopped, and tries once more what failed or took too long."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
import deepy

deepy.enter()

import argparse
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from megatron.neox.corpus.clone.many import RECORD, CloneSettings, clone_each, outcomes
from megatron.neox.corpus.clone.one import CloneLimits
from megatron.neox.corpus.clone.outcomes import CLONED, OUTCOMES, PASSING
from megatron.neox.corpus.repositories import Repository, read_folder, read_list, read_manifest
from megatron.neox.downloads.options import add_retry_options
from megatron.neox.errors import InputError, run_long_door

EXAMPLES = """examples:
  tools/collect/clone_repo.py --input TopLists --output Repositories
  tools/collect/clone_repo.py --input TopLists/C-top-repos.txt --count 100 --workers 4 --output Repositories
  tools/collect/clone_repo.py --from-manifest Repositories/clones.jsonl --output Again
"""


def _parser() -> argparse.ArgumentParser:
    limits, workers = CloneLimits(), CloneSettings(output=Path()).workers
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--input", type=Path, default=Path("TopLists"), metavar="PATH",
        help="a crawl's folder, its manifest.jsonl, or a file of addresses, with or without `stars<TAB>` before "
        "each; the newest commit of each is cloned (default: %(default)s)",
    )  # fmt: skip
    source.add_argument(
        "--from-manifest", type=Path, action="append", metavar="PATH",
        help=f"a {RECORD} or manifest.jsonl, or a folder of such, whose very commits are cloned again; repeatable",
    )  # fmt: skip
    add = parser.add_argument
    add("--output", type=Path, default=Path("Repositories"), metavar="DIR", help="default: %(default)s")
    add("--language", metavar="NAME", help="of a file of addresses that has no name LANGUAGE-top-repos.txt")
    add("--first", type=int, default=0, metavar="N", help="leave out the first N repositories")
    add("--count", type=int, metavar="N", help="clone so many at most (default: all)")
    add("--workers", type=int, default=workers, metavar="N", help="clones at a time (default: %(default)s)")
    add(
        "--timeout", type=float, default=limits.timeout_seconds, metavar="SECONDS",
        help="for one repository (default: %(default)s)",
    )  # fmt: skip
    add(
        "--max-bytes", type=int, default=limits.max_bytes, metavar="N",
        help="leave out what is larger, by what GitHub says or by what comes (default: %(default)s)",
    )  # fmt: skip
    add(
        "--allow-protocol", default="", metavar="A,B",
        help="beside https: http and git, which are not encrypted, or file",
    )  # fmt: skip
    add(
        "--again", default=",".join(sorted(PASSING)), metavar="A,B",
        help=f"outcomes of an earlier run to try once more, of {', '.join(OUTCOMES)} (default: %(default)s)",
    )  # fmt: skip
    add_retry_options(
        parser, limits.num_retries, limits.wait_seconds, "times to try a repository again after what may pass"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Clone, and say how many came to which end."""
    parser = _parser()
    options = parser.parse_args(arguments)
    again = [word for word in options.again.split(",") if word]
    protocols = ["https", *(word for word in options.allow_protocol.split(",") if word)]
    if unknown := [word for word in again if word not in OUTCOMES]:
        parser.error(f"--again: {', '.join(unknown)} is none of {', '.join(OUTCOMES)}")
    if unknown := [word for word in protocols if word not in ("https", "http", "git", "file")]:
        parser.error(f"--allow-protocol: {', '.join(unknown)} is none of http, git, file")
    if options.workers < 1 or options.timeout <= 0 or options.max_bytes < 1:
        parser.error("--workers and --max-bytes must be at least 1, --timeout above 0")
    if min(options.retries, options.retry_wait, options.first, options.count or 0) < 0:
        parser.error("--retries, --retry-wait, --first and --count cannot be negative")
    listed = _repositories(options)
    settings = CloneSettings(
        output=options.output, workers=options.workers, again=again,
        limits=CloneLimits(
            timeout_seconds=options.timeout, max_bytes=options.max_bytes, protocols=protocols,
            num_retries=options.retries, wait_seconds=options.retry_wait,
        ),
    )  # fmt: skip
    num_new = 0
    for clone in clone_each(listed, settings):
        num_new += 1
        entry, told = clone.repository, f": {clone.message}" if clone.message else ""
        print(f"{entry.language}/{entry.name} {clone.outcome}{told}", file=sys.stderr, flush=True)
    _sum_up(options.output, listed, num_new)


def _sum_up(output: Path, listed: Sequence[Repository], num_new: int) -> None:
    """Say how many came to which end, in this run and in those before."""
    known = outcomes(output / RECORD)
    rows = [known[key] for entry in listed if (key := (entry.language, entry.name)) in known]
    ends = Counter(row["outcome"] for row in rows)
    print(f"{output}: {len(listed):,} repositories, {num_new:,} of them now")
    print(", ".join(f"{ends[word]:,} {word}" for word in OUTCOMES if ends[word]) or "none")
    size = sum(row["num_bytes"] for row in rows if row["outcome"] in CLONED)
    print(f"{size / 1e6:,.1f} MB of files")


def _repositories(options: argparse.Namespace) -> list[Repository]:
    """What is to be cloned; by --from-manifest each with its commit, else without."""
    path = options.input
    if options.language and (options.from_manifest or path.is_dir() or path.suffix == ".jsonl"):
        raise InputError(
            "--language is for a file of addresses; what is given says the language of each repository itself "
            f"(of one alone: --input TopLists/{options.language}-top-repos.txt)"
        )
    if options.from_manifest:
        paths = [file for manifest in options.from_manifest for file in _manifests(manifest)]
        rows = [entry for file in paths for entry in read_manifest(file)]
        found = [entry for entry in rows if entry.commit is not None]
        if len(found) < len(rows):
            print(f"{len(rows) - len(found)} without a commit are left out", file=sys.stderr)
    else:
        if path.is_dir():
            rows = read_folder(path)
        elif path.suffix == ".jsonl":
            rows = read_manifest(path)
        else:
            rows = read_list(path, options.language)
        found = [replace(entry, commit=None) for entry in rows]
    end = None if options.count is None else options.first + options.count
    return list(itertools.islice(found, options.first, end))


def _manifests(path: Path) -> list[Path]:
    """A manifest, or those in a folder by name, such as Commits/ of collect_data.sh."""
    if not path.is_dir():
        return [path]
    if not (found := sorted(path.glob("*.jsonl"))):
        raise InputError(
            f"{path} holds no .jsonl file; give a {RECORD} or the folder Commits of collect_data.sh"
        )
    return found


if __name__ == "__main__":
    sys.exit(run_long_door(main, sys.argv[1:]))
