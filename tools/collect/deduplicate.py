#!/usr/bin/env python3
"""Leave out copies: of shards, or of a folder of source files.

Shards (a folder of .parquet files, such as extract_code.py writes) are written anew to --output without the copies:
exact ones by default, near ones with --near. In a folder of files exact copies are told, a line each, `COPY<TAB>KEPT`,
and deleted only where --in-place is given."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

from megatron.neox.corpus.stages.options import add_stage_options, run_as_told
from megatron.neox.corpus.stages.stage import Stage
from megatron.neox.errors import InputError, did_you_mean, log_to_stderr, run_door

_EXAMPLES = """examples:
  tools/collect/deduplicate.py --input shards --output unique
  tools/collect/deduplicate.py --input unique --output distinct --near bigcode
  tools/collect/deduplicate.py --input Code --in-place
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="FOLDER", help="shards, or a folder of source files")
    add(
        "--key", choices=("raw", "normalized"), default="raw",
        help="what makes copies: the files' own bytes, or the text without white space (default: %(default)s)",
    )  # fmt: skip
    add(
        "--against", type=Path, action="append", default=[], metavar="INDEX",
        help="leave out what stands in this index too, repeatable; plain or zip, PolyCoder's or of write_index.py",
    )  # fmt: skip
    add(
        "--near", nargs="?", const="bytes", metavar="PRESET",
        help="leave out near copies instead, by MinHash and Jaccard's index: of pieces of 16 bytes from 0.8 on "
        "(bytes, the default), or as CodeParrot's (codeparrot: words, 0.85) or BigCode's scripts did (bigcode: "
        "five words, 0.7)",
    )  # fmt: skip
    add(
        "--threshold",
        type=float,
        metavar="X",
        help="of near copies: Jaccard's index, in place of the preset's",
    )
    add("--in-place", action="store_true", help="of a folder of files: delete the copies")
    add_stage_options(
        parser, output="gets the shards and summary.json; of a folder of files: the list of copies"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Find out what the input is, and leave out its copies."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.threshold is not None and (options.near is None or not 0 < options.threshold <= 1):
        parser.error("--threshold goes with --near, and lies between 0 and 1")
    if not options.input.is_dir():
        raise InputError(f"{options.input} is not a folder")
    if any(options.input.glob("*.parquet")) or (options.input / ".stage").exists():
        _shards(parser, options)
    else:
        _folder(parser, options)


def _shards(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.in_place:
        parser.error("--in-place is for a folder of files; shards are written anew to --output")
    if options.output is None:
        parser.error("shards need an --output")
    if options.key == "normalized" and options.against:
        parser.error(
            "an index holds hashes of whole files: --against goes with --key raw; run one after the other"
        )
    run_as_told(_stage(parser, options), options)


def _stage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Stage:
    if options.near is None:
        from megatron.neox.corpus.deduplication.exact import ExactDuplicates

        return ExactDuplicates(options.input, options.output, options.key, tuple(options.against)).stage()
    from megatron.neox.corpus.deduplication.near import PRESETS, NearDuplicates

    if options.against or options.key != "raw":
        parser.error("--near goes with neither --key nor --against; run one after the other")
    if options.near not in PRESETS:
        parser.error(f"--near knows {', '.join(PRESETS)}{did_you_mean(options.near, PRESETS)}")
    near = PRESETS[options.near]
    if options.threshold is not None:
        near = replace(near, threshold=options.threshold)
    return NearDuplicates(options.input, options.output, near).stage()


def _folder(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.key != "raw" or options.near is not None:
        parser.error("--key normalized and --near are for shards; tools/collect/extract_code.py makes some")
    if options.resume:
        parser.error("--resume is for shards; of a folder of files, the same command goes on")
    from megatron.neox.corpus.deduplication.folder import deduplicate_folder

    log_to_stderr()
    report = deduplicate_folder(
        options.input, options.output, against=options.against, is_in_place=options.in_place,
        overwrite=options.overwrite, workers=options.workers,
    )  # fmt: skip
    sys.stderr.write(report)


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
