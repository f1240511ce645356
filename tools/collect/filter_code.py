#!/usr/bin/env python3
"""Leave files out of shards of source code, each for a reason that is counted, by filters and presets of them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

import argparse
from collections.abc import Sequence
from typing import Any

from megatron.neox.corpus.filters.by_language import language_lines
from megatron.neox.corpus.filters.presets import DEDUPLICATION, PRESETS, preset
from megatron.neox.corpus.filters.stage import choose, filter_stage, read_options
from megatron.neox.corpus.filters.tokens import add_tokenizer_options, told_tokenizer
from megatron.neox.corpus.stages.options import add_stage_options, run_as_told
from megatron.neox.errors import UserError, run_door
from megatron.neox.plugins import load_plugins
from megatron.neox.reports.funnel import draw_funnel, steps_of

_EXAMPLES = """examples:
  tools/collect/filter_code.py --input runs/shards --preset codeparrot --output runs/filtered
  tools/collect/filter_code.py --input runs/shards --filters long_line,license --config filters.yml --output filtered
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="FOLDER", help="of shards")
    add("--preset", metavar="NAME", help=f"filters as others chose them: {', '.join(PRESETS)}")
    add(
        "--filters",
        default="",
        metavar="A,B",
        help="plugins of kind filter, after those of the preset, in this order",
    )
    add(
        "--config",
        type=Path,
        metavar="YAML",
        help="options of filters, such as `long_line: {max_characters: 500}`",
    )
    add_tokenizer_options(parser, "for char_token_ratio")
    add("--plugins", default="", metavar="A.py,B", help="files and modules that hold filters of your own")
    add_stage_options(parser)
    return parser


def _chosen(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    load_plugins([name for name in options.plugins.split(",") if name])
    base = preset(options.preset) if options.preset else {}
    names = [name for name in options.filters.split(",") if name]
    chosen = choose(base, names, read_options(options.config) if options.config else {})
    given = told_tokenizer(options)
    if given and "char_token_ratio" not in chosen:
        raise UserError("a tokenizer is given, and no filter asks for one; --filters char_token_ratio does")
    if given:
        chosen["char_token_ratio"].update(given)
    return chosen


def main(arguments: Sequence[str]) -> None:
    """Filter, print the counts, and draw the funnel."""
    options = _parser().parse_args(arguments)
    stage = filter_stage(options.input, options.output, _chosen(options))
    summary = run_as_told(stage, options)
    if summary is not None:
        print(language_lines(summary), end="")
        draw_funnel(steps_of([summary]), options.output / "funnel.png")
    if others := DEDUPLICATION.get(options.preset or ""):
        near = f", then --near {others.near}" if others.near else ""
        print(
            f"{options.preset} also leaves out copies: tools/collect/deduplicate.py --key {others.key}{near}"
        )


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
