#!/usr/bin/env python3
"""Collect the source files of a folder: filtered, without exact duplicates, in train and heldout trees."""

from __future__ import annotations

import argparse
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

from megatron.neox.corpus.collect import DEFAULT_FILTERS, CollectSettings, collect
from megatron.neox.errors import run_door

# Other people's packages, tests (some are broken on purpose, or absent on Debian) and what is not source.
_EXCLUDED = ("site-packages", "dist-packages", "node_modules", "__pycache__")
_EXCLUDED_OF_THE_LIBRARY = ("test", "tests", "idle_test")

_EXAMPLES = """examples:
  tools/collect/collect_folder.py --output runs/quickstart/corpus
  tools/collect/collect_folder.py --input ~/code --extensions .c,.h,.py --heldout-share 0.01 --output corpus
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input", type=Path, metavar="FOLDER", help="default: this Python's standard library"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER",
        help="gets train/, heldout/, manifest.jsonl and summary.json",
    )  # fmt: skip
    parser.add_argument(
        "--extensions",
        default=".py",
        metavar=".A,.B",
        help='endings of the names to take (default .py; "" takes all)',
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="NAME",
        help=f"leave out files and folders of this name, repeatable; always: {', '.join(_EXCLUDED)}; "
        f"of the standard library also: {', '.join(_EXCLUDED_OF_THE_LIBRARY)}",
    )  # fmt: skip
    parser.add_argument(
        "--filters", default=",".join(DEFAULT_FILTERS), metavar="A,B",
        help=f"plugins of kind filter, in this order (default {', '.join(DEFAULT_FILTERS)})",
    )  # fmt: skip
    parser.add_argument(
        "--heldout-share", type=float, default=0.04, metavar="X", help="of the bytes (default 0.04)"
    )
    parser.add_argument(
        "--group-depth",
        type=int,
        default=1,
        metavar="N",
        help="parts of a path that name a package (default 1)",
    )
    parser.add_argument(
        "--max-bytes", type=int, default=1 << 20, metavar="N", help="largest file (default 1 MiB)"
    )
    parser.add_argument(
        "--seed", type=int, default=1234, help="of the choice of held-out packages (default %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read the arguments, collect, and say what was kept and left out."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 <= options.heldout_share < 1:
        parser.error("--heldout-share must be at least 0 and less than 1")
    if options.group_depth < 1 or options.max_bytes < 1:
        parser.error("--group-depth and --max-bytes must be at least 1")
    exclude = [*_EXCLUDED, *options.exclude]
    if options.input is None:
        options.input = Path(sysconfig.get_path("stdlib"))
        exclude += _EXCLUDED_OF_THE_LIBRARY
    settings = CollectSettings(
        input=options.input,
        output=options.output,
        extensions=[part.lower() for part in options.extensions.split(",") if part],
        exclude=exclude,
        filters={name: {} for name in options.filters.split(",") if name},
        heldout_share=options.heldout_share,
        group_depth=options.group_depth,
        max_bytes=options.max_bytes,
        seed=options.seed,
        overwrite=options.overwrite,
    )
    summary = collect(settings)
    for part in ("train", "heldout"):
        counts = summary[part]
        print(
            f"{options.output / part}: {counts['num_files']:,} files, {counts['num_bytes'] / 1e6:.2f} MB, "
            f"{counts['num_groups']} packages"
        )
    left_out = ", ".join(f"{count} {reason}" for reason, count in summary["left_out"].items())
    print(f"left out: {left_out or 'none'}")


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
