#!/usr/bin/env python3
"""Take secrets, personal data, opted-out repositories and tests' tasks out of shards of source code."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

import argparse
from collections.abc import Sequence

from megatron.neox.corpus.protection.opt_out import read_opt_out
from megatron.neox.corpus.protection.protect import Protection, protect_stage
from megatron.neox.corpus.protection.redaction import DEFAULT_KINDS
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.options import add_stage_options, run_as_told
from megatron.neox.errors import run_door

_EXAMPLES = """examples:
  tools/collect/protect.py --input runs/filtered --decontaminate humaneval --output runs/protected
  tools/collect/protect.py --input runs/filtered --opt-out opted_out.txt --decontaminate-against tests --drop --output p
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="FOLDER", help="of shards")
    add("--kinds", default=",".join(DEFAULT_KINDS), metavar="A,B",
        help="what is redacted: key, email, ip_address, name (default %(default)s; \"\" for none)")  # fmt: skip
    add(
        "--drop",
        action="store_true",
        help="leave files out in which something is found, instead of redacting it",
    )
    add(
        "--opt-out",
        type=Path,
        metavar="FILE",
        help="repositories to leave out: ORGANIZATION/PROJECT, ORGANIZATION/* or address a line",
    )
    add(
        "--decontaminate",
        action="append",
        default=[],
        choices=["humaneval"],
        help="leave out files with its tasks",
    )
    add("--decontaminate-against", action="append", default=[], type=Path, metavar="FOLDER",
        help="leave out files that hold a file of a folder of tests, repeatable")  # fmt: skip
    add("--min-overlap", type=float, default=0.5, metavar="X",
        help="share of a test file's runs of 13 words that contaminates (default %(default)s; 0: any run)")  # fmt: skip
    add_stage_options(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Protect, and print what was left out and redacted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 <= options.min_overlap <= 1:
        parser.error("--min-overlap is a share, 0 to 1")
    protection = Protection(
        kinds=tuple(kind for kind in options.kinds.split(",") if kind),
        drop=options.drop,
        opted_out=read_opt_out(options.opt_out) if options.opt_out else frozenset(),
        humaneval="humaneval" in options.decontaminate,
        against=tuple(options.decontaminate_against),
        min_overlap=options.min_overlap,
    )
    summary = run_as_told(protect_stage(options.input, options.output, protection), options)
    if summary is not None:
        print(Counts.from_json(summary).number_lines(), end="")


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
