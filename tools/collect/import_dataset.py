#!/usr/bin/env python3
"""Import other people's datasets of source code as shards: parquet, JSON lines, folders of them, or the hub's.

Needed is a column of texts or bytes; what else a dataset tells of its files is taken from the columns that a preset or
an option names. A file of the hub is fetched when its turn comes; the token is HF_TOKEN's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

from megatron.neox.corpus.extraction.source_text import ENCODINGS
from megatron.neox.corpus.importing.import_dataset import PRESETS, ImportSettings, columns_of, importing
from megatron.neox.corpus.stages.options import add_stage_options, run_as_told
from megatron.neox.errors import run_door

_EXAMPLES = """examples:
  tools/collect/import_dataset.py --input hf://datasets/bigcode/the-stack/data/c --preset the-stack --output Shards
  tools/collect/import_dataset.py --input more/ --content-column code --language Rust --output Shards
"""
_COLUMNS = ("content", "repository", "path", "language", "licenses", "stars", "commit")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH",
        help=".parquet and .jsonl files, folders of them, hf://datasets/USER/NAME[@REVISION][/FOLDER]")  # fmt: skip
    add("--preset", choices=sorted(PRESETS), help="the columns of a well-known dataset")
    for name in _COLUMNS:
        default = " (default content)" if name == "content" else ""
        add(f"--{name}-column", metavar="NAME", help=f"the column of the {name}{default}")
    add(
        "--language",
        metavar="NAME",
        help="of all rows, where no column says it (default: by the path's ending)",
    )
    add(
        "--encoding",
        choices=ENCODINGS,
        default="skip",
        help="of bytes that are not UTF-8, as extract_code.py",
    )
    add_stage_options(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read the arguments, import, and say what was kept and left out."""
    options = _parser().parse_args(arguments)
    given = {name: getattr(options, f"{name}_column") for name in _COLUMNS}
    columns = columns_of(options.preset, {**given, "fixed_language": options.language})
    settings = ImportSettings(
        inputs=tuple(options.input), output=options.output, columns=columns, encoding=options.encoding
    )
    run_as_told(importing(settings), options)


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
