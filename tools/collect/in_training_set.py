#!/usr/bin/env python3
"""Say of files whether they were in a training set, by its index (PolyCoder's, or one of write_index.py).

A line a file: `seen` where the index holds its SHA-256, `seen_line_ends` where it does with all line ends LF or all
CRLF, `unseen` else; then the counts. The index is read once, whatever the number of files."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.index.training_set import look_up
from megatron.neox.corpus.stages.shards import escape_path
from megatron.neox.errors import run_door

_EXAMPLES = """examples:
  tools/collect/in_training_set.py index.zip main.c src
  tools/collect/in_training_set.py index.zip src --json
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "index",
        type=Path,
        metavar="INDEX",
        help="plain or zip; tools/download_eval_data.py index fetches PolyCoder's",
    )
    add("paths", type=Path, nargs="+", metavar="PATH", help="files and folders")
    add("--json", action="store_true", help="write JSON: the files with their hashes, and the counts")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Look the files up, and say what was found."""
    options = _parser().parse_args(arguments)
    tally = Tally()
    files = look_up(options.index, options.paths, tally)
    found = Counter(file.verdict for file in files)
    counts = {verdict: found[verdict] for verdict in ("seen", "seen_line_ends", "unseen")}
    if options.json:
        listed = [
            {"path": escape_path(file.path), "sha256": file.sha256, "verdict": file.verdict} for file in files
        ]
        print(json.dumps({"files": listed, "counts": counts, "left_out": tally.skipped}, indent=2))
        return
    for file in files:
        print(f"{file.verdict}\t{escape_path(file.path)}")
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    print(f"{len(files)} files: {told}" + (f"; left out: {tally.reasons()}" if tally.skipped else ""))


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
